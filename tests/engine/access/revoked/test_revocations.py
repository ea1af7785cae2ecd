"""A token that is taken back ends on every worker, and is not accepted again."""

import itertools
import time
from typing import Any

import pytest
import trio

from fanline.engine.access.revoked.revocations import Revocations
from fanline.engine.access.user_places import UserPlaces
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.protocol.auth.revocation import Revocation, encode_revocation
from fanline.protocol.nats.names import Bucket
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw


async def take_back(bus: MemoryBus, **what: str) -> None:
    now = time.time()
    revocation = Revocation(before=now, until=now + 60, **what)
    await bus.kv_put(Bucket.REVOKED, revocation.key, encode_revocation(revocation), 60)


async def enter(engine: RunningEngine, client: RawClient, shown: str) -> str:
    """Connect with a token; `welcome`, or the code of the refusal."""
    await client.upgrade(Authorization=f"Bearer {shown}")
    answer = await client.json()
    return str(answer["d"]["code"] if answer["t"] == "err" else answer["t"])


async def test_revoked_connections_end_within_a_second_and_others_stay() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access()) as engine:
            async with (
                connect_raw(engine.host, engine.port) as anna,
                connect_raw(engine.host, engine.port) as plain,
                connect_raw(engine.host, engine.port) as bob,
            ):
                await plain.upgrade(None, Authorization=f"Bearer {token('anna', iat=time.time() - 1)}")
                assert await enter(engine, anna, token("anna", iat=time.time() - 1)) == "welcome"
                assert await enter(engine, bob, token("bob", iat=time.time() - 1)) == "welcome"
                await take_back(engine.bus, user="anna")
                with trio.fail_after(2):
                    assert await anna.closed() == (4401, "no valid token")
                    assert await plain.closed() == (1008, "no valid token")
                assert (await bob.ask({"v": 1, "t": "ping", "i": "1"}))["t"] == "pong"


async def test_a_worker_that_starts_later_knows_what_was_taken_back() -> None:
    broker = MemoryBroker()
    await take_back(MemoryBus(broker), token_id="t1")
    with trio.fail_after(20):
        async with running_engine(access=token_access(), broker=broker) as engine:
            for name, expected in (("t1", "unauthenticated"), ("t2", "welcome")):
                async with connect_raw(engine.host, engine.port) as client:
                    assert await enter(engine, client, token(jti=name)) == expected


async def test_new_tokens_of_a_user_are_accepted_after_the_old_ones_were_taken_back() -> None:
    broker = MemoryBroker()
    await take_back(MemoryBus(broker), user="anna")
    with trio.fail_after(20):
        async with running_engine(access=token_access(), broker=broker) as engine:
            for issued, expected in ((time.time() - 5, "unauthenticated"), (time.time() + 1, "welcome")):
                async with connect_raw(engine.host, engine.port) as client:
                    assert await enter(engine, client, token(iat=issued)) == expected


@pytest.mark.parametrize("first_message", [False, True])
async def test_a_token_that_is_taken_back_while_a_place_is_sought_does_not_get_in(
    monkeypatch: pytest.MonkeyPatch, first_message: bool
) -> None:
    access, shown, revoked = token_access(), token(connections=2, iat=time.time()), False

    async def take(*_: object) -> None:
        nonlocal revoked
        await trio.lowlevel.checkpoint()
        revoked = True

    monkeypatch.setattr(UserPlaces, "_take", take)
    with trio.fail_after(10):
        async with running_engine(access=access) as engine, connect_raw(engine.host, engine.port) as client:
            access.is_revoked = lambda _: revoked
            if first_message:
                await client.upgrade()
                await client.json()
                answer = await client.ask({"v": 1, "t": "auth", "i": "1", "d": {"token": shown}})
                assert answer["d"]["code"] == "unauthenticated"
            else:
                assert await enter(engine, client, shown) == "unauthenticated"


async def test_a_store_that_has_lost_its_last_entries_hides_no_new_revocation() -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    with trio.fail_after(20):
        async with running_engine(access=token_access(), broker=broker) as engine:
            for number in range(5):
                await take_back(bus, token_id=f"t{number}")
            await trio.sleep(1.2)
            broker.buckets.clear()  # as after a crash of nats-server before it wrote to the disk
            broker._revisions = itertools.count(1)
            engine.bus.on_loss(trio.current_time())
            async with connect_raw(engine.host, engine.port) as anna:
                assert await enter(engine, anna, token("anna", iat=time.time() - 1)) == "welcome"
                await take_back(bus, user="anna")
                with trio.fail_after(2):
                    assert await anna.closed() == (4401, "no valid token")


async def test_a_token_is_compared_with_few_revocations_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus, compared = MemoryBus(MemoryBroker()), 0
    for number in range(200):
        await take_back(bus, token_id=f"t{number}")
        await take_back(bus, user=f"u{number}")
    revocations, covers = Revocations(bus), Revocation.covers
    await revocations.read()

    def counting(*what: Any) -> bool:
        nonlocal compared
        compared += 1
        return covers(*what)

    monkeypatch.setattr(Revocation, "covers", counting)
    for who, expected in ((token("u7"), True), (token("anna", jti="t7"), True), (token("anna", jti="x"), False)):
        assert revocations.covers(await token_access().identify(who)) is expected
    assert compared <= 3


async def test_while_the_bus_is_away_what_is_known_stays_and_what_cannot_be_read_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    revocations, heard = Revocations(bus), 0

    def on_new() -> None:
        nonlocal heard
        heard += 1

    identity = await token_access().identify(token("anna"))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await bus.kv_put(Bucket.REVOKED, "user.x", b"rubbish", 60)
            nursery.start_soon(revocations.run, on_new)
            await take_back(bus, user="anna")
            while not revocations.covers(identity):
                await trio.sleep(0.05)
            broker.available = False
            await trio.sleep(1.2)
            assert revocations.covers(identity)
            nursery.cancel_scope.cancel()
    assert heard == 1
    assert "user.x cannot be read" in caplog.text
