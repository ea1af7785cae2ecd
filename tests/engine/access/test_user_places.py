"""A user's connections are counted over all workers, and given back whatever ends them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
import trio

from fanline.engine.access import user_places
from fanline.engine.access.identity import Identity
from fanline.engine.access.settings import AccessSettings
from fanline.engine.access.user_places import PlaceRule, PlacesEntry, TakenPlace
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.protocol.auth.rights import Grants
from fanline.protocol.errors import CloseReason
from fanline.protocol.nats.names import Bucket
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request

TWO = AccessSettings(connections=2)


@asynccontextmanager
async def two_workers(access: AccessSettings = TWO) -> AsyncIterator[list[RunningEngine]]:
    broker = MemoryBroker()
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(running_engine(access=token_access(access), broker=broker))
                for _ in range(2)
            ]


async def enter(stack: AsyncExitStack, engine: RunningEngine, shown: str) -> tuple[RawClient, str]:
    """Connect with a token; the client, and `welcome` or the code of the refusal."""
    client = await stack.enter_async_context(connect_raw(engine.host, engine.port))
    await client.upgrade(Authorization=f"Bearer {shown}")
    answer = await client.json()
    return client, str(answer["d"]["code"] if answer["t"] == "err" else answer["t"])


async def taken(broker: MemoryBroker) -> int:
    entries = await MemoryBus(broker).kv_entries(Bucket.PLACES)
    return sum(len(msgspec.json.decode(entry.value, type=PlacesEntry).taken) for entry in entries.values())


async def until_taken(broker: MemoryBroker, number: int) -> None:
    while await taken(broker) != number:
        await trio.sleep(0.01)


async def test_a_user_has_no_more_connections_than_it_may_have_on_all_workers_together() -> None:
    async with two_workers() as engines, AsyncExitStack() as stack:
        said = [await enter(stack, engines[number % 2], token("anna")) for number in range(4)]
        assert [word for _, word in said] == ["welcome", "welcome", "limit_exceeded", "limit_exceeded"]
        assert await said[2][0].closed() == (4429, "over a limit")
        assert (await enter(stack, engines[0], token("bob")))[1] == "welcome"
        assert (await enter(stack, engines[0], token(None)))[1] == "welcome"  # nobody in particular is not counted


async def test_a_connection_that_ends_gives_its_place_back() -> None:
    async with two_workers() as engines:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for engine in engines:
                    assert (await enter(stack, engine, token("anna")))[1] == "welcome"
            await until_taken(engines[0].broker, 0)


async def test_a_token_may_say_another_number() -> None:
    async with two_workers() as engines, AsyncExitStack() as stack:
        words = [(await enter(stack, engines[0], token("anna", connections=3)))[1] for _ in range(4)]
        assert words == ["welcome"] * 3 + ["limit_exceeded"]


async def test_a_token_in_the_first_message_counts_as_well_and_a_new_one_takes_no_second_place() -> None:
    async with two_workers(AccessSettings(connections=1)) as engines, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect_raw(engines[0].host, engines[0].port)) for _ in range(2)]
        for client in clients:
            await client.upgrade()
            await client.json()
        shown = {"v": 1, "t": "auth", "i": "a", "d": {"token": token("anna")}}
        for _ in range(2):
            assert (await clients[0].ask(shown))["t"] == "ok"
        assert (await clients[1].ask(shown))["d"]["code"] == "limit_exceeded"
        assert (await clients[1].closed())[0] == 4429


async def test_a_plain_client_is_refused_before_the_upgrade() -> None:
    async with two_workers(AccessSettings(connections=1)) as engines, AsyncExitStack() as stack:
        await enter(stack, engines[0], token("anna"))
        client = await stack.enter_async_context(connect_raw(engines[1].host, engines[1].port))
        await client.send(upgrade_request(f"/ws?token={token('anna')}", subprotocol=None))
        status, headers, body = await client.read_http()
        assert (status, headers["retry-after"], b'"error":"limit_exceeded"' in body) == (429, "5", True)


async def test_of_many_that_come_at_once_as_many_get_in_as_there_are_places() -> None:
    async with two_workers(AccessSettings(connections=5)) as engines, AsyncExitStack() as stack:
        words: list[str] = []

        async def come(number: int) -> None:
            words.append((await enter(stack, engines[number % 2], token("anna")))[1])

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(come, number)
        assert sorted(words) == ["limit_exceeded"] * 45 + ["welcome"] * 5


async def test_the_places_of_a_dead_worker_are_free_again() -> None:
    async with two_workers(AccessSettings(connections=1)) as engines, AsyncExitStack() as stack:
        bus = MemoryBus(engines[0].broker)
        async with AsyncExitStack() as brief:
            await enter(brief, engines[0], token("anna"))
            (key,) = await bus.kv_entries(Bucket.PLACES)
        await until_taken(engines[0].broker, 0)
        revision = (await bus.kv_get(Bucket.PLACES, key) or pytest.fail("no entry")).revision
        await bus.kv_update(Bucket.PLACES, key, msgspec.json.encode(PlacesEntry([TakenPlace("dead", "x")])), revision)
        assert (await enter(stack, engines[1], token("anna")))[1] == "welcome"


async def test_while_the_bus_is_away_a_limited_user_is_told_so_and_gets_its_place_back_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_places, "_RETRY_SECONDS", 0.05)
    async with two_workers(AccessSettings(connections=1)) as engines, AsyncExitStack() as stack:
        async with AsyncExitStack() as brief:
            await enter(brief, engines[0], token("anna"))
            engines[0].broker.available = False
            assert (await enter(brief, engines[1], token("bob")))[1] == "unavailable"
        engines[0].broker.available = True
        await until_taken(engines[0].broker, 0)
        assert (await enter(stack, engines[1], token("anna")))[1] == "welcome"


@pytest.mark.parametrize(
    ("subprotocol", "code"),
    [("fanline.v1.json", CloseReason.REPLACED), (None, CloseReason.NORMAL)],
    ids=["v1", "plain"],
)
async def test_a_replaced_client_is_told_not_to_come_back(subprotocol: str | None, code: CloseReason) -> None:
    async with two_workers(AccessSettings(connections=1)) as engines, AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect_raw(engines[0].host, engines[0].port))
        await client.upgrade(subprotocol, Authorization=f"Bearer {token('anna')}")
        newcomer = Identity(user="anna", grants=Grants(), connections=1)
        assert await engines[1].server._parts.admittance.places.take(newcomer, PlaceRule(replace=True)) is not None
        assert (await client.closed())[0] == code.code
        assert not code.reconnect
        await until_taken(engines[0].broker, 1)
