"""Join and resume on a durable channel: one exact sequence of history and live, whatever happens meanwhile."""

import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.durable.history import History, Piece
from fanline.engine.channels.joining.history_sender import HistorySender
from fanline.engine.namespaces import Namespace
from fanline.engine.settings import EngineSettings
from fanline.protocol.nats.names import Bucket
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.support.seeds import new_seed

CHANNEL = "task:1"


@asynccontextmanager
async def durable_engine(**namespace: Any) -> AsyncIterator[RunningEngine]:
    settings = EngineSettings(namespaces={"task": Namespace(durable=True, **namespace)}, outbox_bytes=50_000_000)
    with trio.fail_after(30):
        async with running_engine(settings) as engine:
            yield engine


async def publish(engine: RunningEngine, *numbers: int) -> None:
    for number in numbers:
        await engine.bus.store(CHANNEL, b"%d" % number, f"id{number}")


async def subscribe(client: RawClient, **position: Any) -> dict[str, Any]:
    return await client.ask({"t": "sub", "c": CHANNEL, "i": "s", **position})


async def numbers(client: RawClient, count: int) -> list[int]:
    """The data of the next messages; each must follow on the one before."""
    messages = [await client.json() for _ in range(count)]
    for earlier, later in itertools.pairwise(messages):
        assert later["p"] == earlier["o"]
    return [message["d"] for message in messages]


async def test_a_plain_sub_tells_where_it_begins_and_sends_only_what_comes() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2)
        answer = await subscribe(client)
        assert (answer["o"], "d" in answer) == (2, False)
        await publish(engine, 3)
        message = await client.json()
        assert (message["d"], message["o"], message["p"]) == (3, 3, 2)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({"o": 7}, [8, 9, 10]),
        ({"o": 10}, []),
        ({"o": 0}, list(range(1, 11))),
        ({"d": {"start": True}}, list(range(1, 11))),
        ({"d": {"last": 4}}, [7, 8, 9, 10]),
        ({"d": {"snapshot": True}}, [10]),
        ({"d": {"last": 1000}}, list(range(1, 11))),
    ],
)
async def test_history_comes_after_the_answer_and_before_live(position: dict[str, Any], expected: list[int]) -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, *range(1, 11))
        answer = await subscribe(client, **position)
        assert answer["d"] == {"recovered": True, "count": len(expected)}
        assert answer["o"] == 10
        await publish(engine, 11)
        assert await numbers(client, len(expected) + 1) == [*expected, 11]


async def test_a_resume_by_offset_and_epoch_is_exact_and_by_another_epoch_is_told() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2, 3)
        epoch = (await subscribe(client))["ep"]
        async with connect(engine.host, engine.port) as resuming:
            answer = await subscribe(resuming, o=1, ep=epoch)
            assert answer["d"] == {"recovered": True, "count": 2}
            assert await numbers(resuming, 2) == [2, 3]
        async with connect(engine.host, engine.port) as stranger:
            answer = await subscribe(stranger, o=1, ep="other")
            assert answer["d"] == {"recovered": False, "count": 3}
            gap = await stranger.json()
            assert (gap["t"], gap["ep"], gap["d"]["reason"]) == ("gap", epoch, "epoch")
            assert await numbers(stranger, 3) == [1, 2, 3]


async def test_an_offset_that_another_worker_told_is_no_future_although_this_one_lags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as here:
        await publish(engine, 1)
        await subscribe(here)
        with monkeypatch.context() as deaf:
            deaf.setattr(engine.bus, "hand_over", lambda *_: None)
            await publish(engine, 2, 3)
        async with connect(engine.host, engine.port) as back:
            answer = await subscribe(back, o=3)
            assert (answer["o"], answer["d"]) == (3, {"recovered": True, "count": 0})
        assert await numbers(here, 2) == [2, 3]


async def test_a_position_in_an_empty_channel_is_one_wherever_it_was_given() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as here:
        assert (await subscribe(here))["o"] == 0  # this worker opened the channel before the others moved the stream
        await engine.bus.store("task:other", b"x", "x")
        async with connect(engine.host, engine.port) as back:
            assert (await subscribe(back, o=1))["d"] == {"recovered": True, "count": 0}


async def test_who_subscribed_to_an_empty_channel_is_told_when_its_first_messages_are_gone() -> None:
    async with durable_engine(history=3) as engine, connect(engine.host, engine.port) as client:
        await publish(engine, *range(1, 11))
        answer = await subscribe(client, o=0)
        assert answer["d"] == {"recovered": False, "count": 3}
        assert (await client.json())["d"] == {"from": 1, "to": 7, "reason": "expired"}


async def test_messages_that_expired_are_an_exact_gap() -> None:
    async with durable_engine(history=3) as engine, connect(engine.host, engine.port) as client:
        await publish(engine, *range(1, 11))
        answer = await subscribe(client, o=2)
        assert answer["d"] == {"recovered": False, "count": 3}
        assert (await client.json())["d"] == {"from": 3, "to": 7, "reason": "expired"}
        assert await numbers(client, 3) == [8, 9, 10]


async def test_a_quiet_channel_whose_history_expired_makes_no_false_gap_for_who_is_there() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as live:
        await publish(engine, 1, 2)
        await subscribe(live, d={"start": True})
        assert await numbers(live, 2) == [1, 2]
        engine.broker.streams["task"].expire(2)
        await engine.bus.store("task:other", b"x", "x")
        async with connect(engine.host, engine.port) as back:
            # This worker has listened all the time, so it knows that nothing came.
            assert (await subscribe(back, o=2))["d"] == {"recovered": True, "count": 0}
        await publish(engine, 4)
        message = await live.json()
        assert (message["d"], message["p"]) == (4, 2)


async def test_a_resume_that_nobody_can_vouch_for_is_not_called_recovered() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2)
        engine.broker.streams["task"].expire(2)
        await engine.bus.store("task:other", b"x", "x")
        answer = await subscribe(client, o=1)
        assert answer["d"]["recovered"] is False
        assert (await client.json())["d"] == {"from": 2, "to": 3, "reason": "expired"}


async def test_after_a_viewer_from_the_start_a_resume_is_still_told_its_gap() -> None:
    async with durable_engine(history=3) as engine, connect(engine.host, engine.port) as client:
        await publish(engine, *range(1, 11))
        assert (await subscribe(client, d={"start": True}))["d"] == {"recovered": True, "count": 3}
        async with connect(engine.host, engine.port) as resuming:
            assert (await subscribe(resuming, o=2))["d"] == {"recovered": False, "count": 3}
            assert (await resuming.json())["d"] == {"from": 3, "to": 7, "reason": "expired"}


async def test_the_first_message_of_a_history_follows_on_what_was_asked_for() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await engine.bus.store("task:other", b"x", "x")
        await publish(engine, 2, 3)
        await subscribe(client, o=1)
        first = await client.json()
        assert (first["o"], first["p"]) == (2, 1)


async def test_many_viewers_of_the_newest_messages_cost_one_look_back() -> None:
    async with durable_engine(history=5000) as engine, connect(engine.host, engine.port) as resident:
        await publish(engine, *range(1, 101))
        await subscribe(resident)
        for _ in range(5):
            async with connect(engine.host, engine.port) as client:
                assert (await subscribe(client, d={"last": 20}))["d"]["count"] == 20
                assert await numbers(client, 20) == list(range(81, 101))
        assert engine.bus.reads == 1


async def test_an_outage_after_the_answer_is_waited_out_and_not_answered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # `ok` was sent, then the bus failed while the client was catching up: an `err` for the same command came after it.
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2)
        send, history, failures = HistorySender.send, History.after, [BusError("away for a moment")]

        async def slow_send(*args: Any) -> None:
            await send(*args)
            if failures:
                await publish(engine, 3)
                monkeypatch.setattr(History, "after", failing)

        async def failing(*args: Any) -> Piece:
            if failures:
                raise failures.pop()
            return await history(*args)

        monkeypatch.setattr(HistorySender, "send", slow_send)
        assert (await subscribe(client, d={"start": True}))["t"] == "ok"
        assert await numbers(client, 3) == [1, 2, 3]
        assert not failures


@pytest.mark.parametrize(
    ("position", "code"),
    [
        ({"o": 4}, "bad_offset"),
        ({"o": 2**62}, "bad_offset"),
        ({"o": -1}, "bad_message"),
        ({"o": "1"}, "bad_message"),
        ({"d": {"last": 0}}, "bad_message"),
        ({"d": {"last": 10**9}}, "bad_message"),
        ({"d": {"first": 1}}, "bad_message"),
        ({"d": 5}, "bad_message"),
    ],
)
async def test_a_position_that_makes_no_sense_is_an_err_and_no_subscription(
    position: dict[str, Any], code: str
) -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2, 3)
        answer = await subscribe(client, **position)
        assert (answer["t"], answer["d"]["code"]) == ("err", code)
        assert (await client.ask({"t": "unsub", "c": CHANNEL, "i": "u"}))["d"]["code"] == "not_subscribed"
        assert (await subscribe(client))["t"] == "ok"


async def test_joins_at_random_moments_with_random_offsets_are_exact() -> None:
    rng = random.Random(new_seed())
    total = 1000
    async with durable_engine(history=5000) as engine, trio.open_nursery() as nursery:
        await publish(engine, *range(1, 101))

        async def join(delay: float, offset: int, subprotocol_wait: float) -> None:
            await trio.sleep(delay)
            async with connect(engine.host, engine.port) as client:
                answer = await subscribe(client, o=offset)
                assert answer["d"]["recovered"] is True
                await trio.sleep(subprotocol_wait)
                assert await numbers(client, total - offset) == list(range(offset + 1, total + 1))

        for _ in range(60):
            nursery.start_soon(join, rng.random(), rng.randrange(100), rng.random() * 0.2)
        for number in range(101, total + 1):
            await publish(engine, number)
            if number % 7 == 0:
                await trio.sleep(0.005)


async def test_a_bus_that_loses_every_tenth_message_is_mended_before_clients_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await subscribe(client)
        whole = engine.bus.hand_over

        def lossy(channel: str, payload: bytes, position: StreamPosition | None) -> None:
            if position is None or position.offset % 10:
                whole(channel, payload, position)

        monkeypatch.setattr(engine.bus, "hand_over", lossy)
        await publish(engine, *range(1, 302))
        assert await numbers(client, 301) == list(range(1, 302))


async def test_after_an_outage_only_what_moved_is_read() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1)
        await subscribe(client)
        for number in range(20):
            assert (await client.ask({"t": "sub", "c": f"task:quiet{number}", "i": "q"}))["t"] == "ok"
        engine.bus.leave(CHANNEL)  # deaf for a while
        await publish(engine, 2, 3)
        engine.bus.join(CHANNEL)
        reads = engine.bus.reads
        engine.bus.on_loss(time.time() - 5)
        assert await numbers(client, 2) == [2, 3]
        await publish(engine, 4)
        assert (await client.json())["d"] == 4
        assert engine.bus.reads == reads + 1


async def test_a_stream_that_was_made_anew_is_told() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1, 2, 3)
        epoch = (await subscribe(client))["ep"]
        engine.broker.recreate("task")
        await publish(engine, 11)
        gap = await client.json()
        assert (gap["t"], gap["d"]["reason"]) == ("gap", "epoch")
        assert gap["ep"] != epoch
        message = await client.json()
        assert (message["d"], message["o"]) == (11, 1)


async def test_a_publish_answers_with_its_offset_and_a_repeat_with_the_same() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        first, again = [
            await client.ask({"t": "pub", "c": CHANNEL, "i": f"m{n}", "d": 1, "dd": "twice-the-same-one"})
            for n in (0, 1)
        ]
        other = await client.ask({"t": "pub", "c": CHANNEL, "i": "m2", "d": 2})
        assert (first["o"], again["o"], other["o"]) == (1, 1, 2)
        engine.broker.available = False
        refused = await client.ask({"t": "pub", "c": CHANNEL, "i": "m3", "d": 3})
        assert (refused["t"], refused["d"]["code"]) == ("err", "unavailable")
        assert (await subscribe(client))["d"]["code"] == "unavailable"


async def test_a_stored_message_that_is_no_message_breaks_no_chain() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1)
        await subscribe(client, d={"start": True})
        await engine.bus.store(CHANNEL, b"{broken", "bad")
        await publish(engine, 3)
        assert await numbers(client, 2) == [1, 3]


async def test_an_expired_ttl_is_never_delivered() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await publish(engine, 1)
        await engine.bus.store(CHANNEL, b'{"v":1,"ts":1000,"ttl":5,"d":"long gone"}', "old")
        await publish(engine, 3)
        assert (await subscribe(client, d={"start": True}))["d"]["count"] == 2
        assert await numbers(client, 2) == [1, 3]


async def test_a_session_is_taken_up_on_another_connection_with_nothing_lost() -> None:
    async with durable_engine() as engine:
        async with connect_raw(engine.host, engine.port) as first:
            await first.upgrade()
            session = (await first.json())["d"]["session"]
            epoch = (await subscribe(first))["ep"]
            assert (await first.ask({"t": "sub", "c": "news:all", "i": "n"}))["t"] == "ok"
            await publish(engine, 1, 2)
            assert await numbers(first, 2) == [1, 2]
            while (Bucket.SESSIONS, session) not in engine.broker.buckets:
                await trio.sleep(0.01)
        await publish(engine, 3, 4)
        async with connect(engine.host, engine.port) as second:
            data = {"session": session, "positions": {CHANNEL: [2, epoch]}}
            await second.say({"t": "auth", "i": "a", "d": data})
            frames = [await second.json() for _ in range(5)]
            taken_up = frames[-1]["d"].pop("session")
            assert frames[-1]["d"] == {"user": None, "resumed": True}
            assert taken_up != session
            where = {frame["c"]: frame for frame in frames[:-1] if frame["t"] == "ok"}
            assert set(where) == {CHANNEL, "news:all"}
            assert where[CHANNEL]["d"] == {"recovered": True, "count": 2}
            assert [frame["d"] for frame in frames[:-1] if frame["t"] == "pub"] == [3, 4]
            await engine.bus.publish("news:all", b'"live"')
            assert (await second.json())["d"] == "live"


async def test_a_connection_that_is_dead_already_does_not_overwrite_the_session_that_has_taken_its_own_up() -> None:
    async with durable_engine() as engine, connect_raw(engine.host, engine.port) as first:
        await first.upgrade()
        old = (await first.json())["d"]["session"]
        await subscribe(first)
        while (Bucket.SESSIONS, old) not in engine.broker.buckets:
            await trio.sleep(0.01)
        async with connect(engine.host, engine.port) as second:  # the first one is still open, as on another worker
            await second.say({"t": "auth", "i": "a", "d": {"session": old}})
            while (answer := await second.json()).get("i") != "a":
                pass
            session = answer["d"]["session"]
            assert (await second.ask({"t": "sub", "c": "news:all", "i": "n"}))["t"] == "ok"
            assert (await first.ask({"t": "unsub", "c": CHANNEL, "i": "u"}))["t"] == "ok"
            while b'"channels":[]' not in engine.broker.buckets[Bucket.SESSIONS, old].entry.value:
                await trio.sleep(0.01)
            while b"news:all" not in (found := engine.broker.find(Bucket.SESSIONS, session)).value:  # type: ignore[union-attr]
                await trio.sleep(0.01)
            assert found is not None
            assert CHANNEL.encode() in found.value


async def test_an_unknown_session_is_not_resumed_and_a_broken_one_is_an_err() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        answer = await client.ask({"t": "auth", "i": "a", "d": {"session": "nobody"}})
        assert answer["d"]["resumed"] is False
        for broken in ({"session": ""}, {"session": "a.b"}, {"session": "x", "positions": {"task:1": [-1, ""]}}):
            answer = await client.ask({"t": "auth", "i": "b", "d": broken})
            assert (answer["t"], answer["d"]["code"]) == ("err", "bad_message")


async def test_an_inbox_comes_again_until_it_is_acknowledged() -> None:
    async with durable_engine() as engine:
        for number in (1, 2, 3):
            await engine.bus.store("user:ada", b'{"v":1,"i":"n%d","d":%d}' % (number, number), f"n{number}")

        async def unread(client: RawClient) -> list[int]:
            answer = await client.ask({"t": "sub", "c": "user:ada", "i": "s"})
            return await numbers(client, answer["d"]["count"])

        async with connect(engine.host, engine.port) as phone, connect(engine.host, engine.port) as laptop:
            assert await unread(phone) == [1, 2, 3]
            assert await unread(laptop) == [1, 2, 3]
            assert (await phone.ask({"t": "ack", "c": "user:ada", "o": 1, "i": "a"}))["o"] == 1
            assert (await laptop.ask({"t": "ack", "i": "a", "d": "n2"}))["o"] == 2
            assert (await phone.ask({"t": "ack", "c": "user:ada", "o": 1, "i": "a"}))["t"] == "ok"  # never back
        async with connect(engine.host, engine.port) as tablet:
            assert await unread(tablet) == [3]


async def test_a_message_of_an_inbox_that_was_recreated_acknowledges_nothing_of_the_new_one() -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        await engine.bus.store("user:ada", b'{"v":1,"d":1}', "before")
        former = (await client.ask({"t": "sub", "c": "user:ada", "i": "s", "o": 0}))["ep"]
        engine.broker.recreate("user")
        await engine.bus.store("user:ada", b'{"v":1,"d":2}', "after")
        async with connect(engine.host, engine.port) as phone:
            await phone.ask({"t": "sub", "c": "user:ada", "i": "s"})
            assert await numbers(phone, 1) == [2]
            answer = await phone.ask({"t": "ack", "c": "user:ada", "o": 1, "ep": former, "i": "a"})
            assert (answer["t"], answer["d"]["code"]) == ("err", "unknown_message")
        async with connect(engine.host, engine.port) as tablet:
            assert (await tablet.ask({"t": "sub", "c": "user:ada", "i": "s"}))["d"]["count"] == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"c": "user:ada", "o": 99}, "unknown_message"),
        ({"c": "user:ada", "d": "nobody's"}, "unknown_message"),
        ({"c": "user:ada"}, "unknown_message"),
        ({"c": "user:bob", "o": 1}, "not_subscribed"),
        ({"c": "task:1", "o": 1}, "not_subscribed"),
    ],
)
async def test_an_ack_that_means_nothing_is_an_err(command: dict[str, Any], code: str) -> None:
    async with durable_engine() as engine, connect(engine.host, engine.port) as client:
        assert (await client.ask({"t": "sub", "c": "user:ada", "i": "s"}))["t"] == "ok"
        assert (await client.ask({"t": "sub", "c": "task:1", "i": "s"}))["t"] == "ok"
        answer = await client.ask({"t": "ack", "i": "a", **command})
        assert (answer["t"], answer["d"]["code"]) == ("err", code)
        engine.broker.available = False
        answer = await client.ask({"t": "ack", "i": "a", "c": "user:ada", "o": 0})
        assert (answer["t"], answer["d"]["code"]) == ("err", "unavailable")
