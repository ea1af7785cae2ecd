"""Calls to the producer of a task: what is asked, what all viewers see, and who wins when several answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.bus.interface import PING
from fanline.engine.settings import EngineSettings
from tests.engine.running import RunningEngine, running_engine
from tests.engine.task_channels import CHANNEL, Producer, call, watch
from tests.support.raw_client import RawClient, connect


async def silence(payload: bytes) -> bytes:
    """A producer that is attached, and never answers a call."""
    if payload != PING:
        await trio.Event().wait()
    return b""


@asynccontextmanager
async def attached(max_message_bytes: int = 65536) -> AsyncIterator[tuple[RunningEngine, Producer, RawClient]]:
    """An engine, a producer that is attached to a running task, and a client that does not watch it."""
    settings = EngineSettings(call_timeout=0.2, max_message_bytes=max_message_bytes)
    with trio.fail_after(30):
        async with running_engine(settings) as engine:
            producer = Producer(engine.broker)
            producer.attach()
            await producer.say("task_started")
            async with connect(engine.host, engine.port) as client:
                yield engine, producer, client


async def events(client: RawClient, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(event, data without what names the one call) of the next messages."""
    frames = [await client.json() for _ in range(count)]
    return [(frame["e"], {k: v for k, v in frame["d"].items() if k not in ("call", "attempt")}) for frame in frames]


def code(reply: dict[str, Any]) -> str:
    assert reply["t"] == "err", reply
    return str(reply["d"]["code"])


async def test_a_cancel_is_seen_as_requested_and_accepted_before_the_caller_hears_ok() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await watch(viewer)
        reply = await call(client, "cancel", {"deadline": 9, "by": "ann"})
        assert (reply["t"], reply["d"]) == ("ok", {"done": True})
        assert await events(viewer, 2) == [
            ("task_cancel_requested", {"by": "ann", "deadline": 9.0, "state": "cancelling"}),
            ("task_cancel_accepted", {"by": "ann", "deadline": 9.0, "state": "cancelling"}),
        ]
        (asked,) = producer.calls
        assert (asked["e"], asked["u"], asked["d"]) == ("cancel", "ann", {"deadline": 9.0, "attempt": 1})


async def test_a_producer_that_refuses_to_stop_goes_on_and_all_see_it() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await watch(viewer)
        producer.answer = b'{"v":1,"t":"err","d":{"code":"refused","message":"not now"}}'
        reply = await call(client, "cancel")
        assert (code(reply), reply["d"]["message"]) == ("refused", "not now")
        assert [(event, data["state"]) for event, data in await events(viewer, 2)] == [
            ("task_cancel_requested", "cancelling"),
            ("task_cancel_refused", "running"),
        ]


async def test_without_a_producer_nothing_is_recorded_and_the_caller_hears_so() -> None:
    async with attached() as (engine, producer, client):
        producer.detach()
        stored = engine.broker.streams["task"].newest(CHANNEL)
        for verb in ("cancel", "approve", "input", "refresh"):
            reply = await call(client, verb, {"ask": "q", "value": 1})
            assert (code(reply), reply["d"]["message"]) == ("no_producer", f"no producer of {CHANNEL} answers")
        assert engine.broker.streams["task"].newest(CHANNEL) == stored


async def test_a_producer_that_says_nothing_is_told_from_one_that_is_not_there() -> None:
    async with attached() as (engine, _, client):
        engine.broker.listeners[CHANNEL] = silence
        assert code(await call(client, "refresh")) == "no_answer"


async def test_of_two_workers_viewers_exactly_one_answer_wins_every_time() -> None:
    async with attached() as (engine, producer, client), running_engine(broker=engine.broker) as other:
        async with connect(other.host, other.port) as rival:
            for number in range(50):
                ask = f"q{number}"
                await producer.say("task_confirmation_required", ask=ask, text="deploy?")
                replies: dict[str, dict[str, Any]] = {}

                async def answer(name: str, who: RawClient, verb: str, ask: str, into: dict[str, Any]) -> None:
                    into[name] = await call(who, verb, {"ask": ask, "by": name})

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(answer, "ann", client, "approve", ask, replies)
                    nursery.start_soon(answer, "bob", rival, "reject", ask, replies)
                (winner,) = [name for name, reply in replies.items() if reply["t"] == "ok"]
                (loser,) = {"ann", "bob"} - {winner}
                assert code(replies[loser]) == "already_answered"
                assert replies[loser]["d"]["message"] == f"already answered by {winner}"
                heard = [each for each in producer.calls if each["d"]["ask"] == ask]
                assert [(each["u"], each["d"]["value"]) for each in heard] == [(winner, winner == "ann")]


async def test_an_answer_without_a_name_is_for_the_newest_question() -> None:
    async with attached() as (_, producer, client):
        assert code(await call(client, "approve")) == "bad_state"
        await producer.say("task_confirmation_required", ask="q", kind="input", text="which?")
        assert (await call(client, "input", {"value": "blue", "by": "ann"}))["t"] == "ok"
        assert producer.calls[-1]["d"] == {"ask": "q", "value": "blue"}
        assert code(await call(client, "approve")) == "already_answered"


async def test_only_what_a_question_offers_can_be_chosen() -> None:
    async with attached() as (_, producer, client):
        await producer.say("task_confirmation_required", ask="q", text="which?", options=["blue", "green"])
        for verb, data in (("approve", {}), ("approve", {"value": "red"}), ("input", {"ask": "q", "value": "red"})):
            reply = await call(client, verb, data)
            assert (code(reply), reply["d"]["message"]) == ("bad_message", "choose one of: blue, green")
        assert (await call(client, "approve", {"value": "blue"}))["t"] == "ok"
        assert producer.calls[-1]["d"] == {"ask": "q", "value": "blue"}
        await producer.say("task_confirmation_required", ask="v", kind="input")
        assert code(await call(client, "approve")) == "bad_state"
        assert (await call(client, "reject"))["t"] == "ok"


async def test_a_task_without_a_producer_can_be_ended_by_force() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await watch(viewer)
        producer.detach()
        assert code(await call(client, "cancel")) == "no_producer"
        assert (await call(client, "cancel", {"force": True, "by": "ann"}))["t"] == "ok"
        assert await events(viewer, 1) == [("task_cancelled", {"by": "ann", "forced": True, "state": "cancelled"})]


async def test_input_that_nobody_asked_for_reaches_the_producer_and_viewers_see_only_who_gave_it() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await watch(viewer)
        assert (await call(client, "input", {"value": "secret", "by": "ann"}))["t"] == "ok"
        assert producer.calls[-1]["d"] == {"value": "secret"}
        assert await events(viewer, 1) == [("task_input", {"by": "ann", "state": "running"})]


@pytest.mark.parametrize(
    ("answer", "expected"), [(b"", None), (b"7", 7), (b'{"a":1}', {"a": 1}), (b'{"v":1,"t":"ok"}', None)]
)
async def test_a_producer_may_answer_with_any_json(answer: bytes, expected: Any) -> None:
    async with attached() as (_, producer, client):
        producer.answer = answer
        reply = await call(client, "refresh", {"deep": True})
        assert (reply["t"], reply.get("d")) == ("ok", expected)
        assert (producer.calls[-1]["e"], producer.calls[-1]["d"]) == ("refresh", {"deep": True})


@pytest.mark.parametrize("answer", [b"\xff", b"{", b'{"t":"ok","v":9}', b'{"v":1,"t":5}'])
async def test_a_producer_that_answers_nonsense_hurts_nobody(answer: bytes) -> None:
    async with attached() as (_, producer, client):
        producer.answer = answer
        assert code(await call(client, "refresh")) == "refused"
        assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"


async def test_calls_that_make_no_sense_are_told_why() -> None:
    async with attached() as (_, producer, client):
        for bad in ({"deadline": -1}, {"deadline": "soon"}, {"ask": 5}, {"by": "x" * 65}):
            assert code(await call(client, "cancel", bad)) == "bad_message"
        assert code(await call(client, "input", {})) == "bad_message"
        assert code(await call(client, "")) == "bad_message"
        assert code(await call(client, "approve", {"ask": "never asked"})) == "bad_state"
        for channel, expected in (("room:x", "not_supported"), ("task:nope", "unknown_task"), ("task", "bad_channel")):
            assert code(await client.ask({"t": "call", "c": channel, "e": "cancel", "i": "c"})) == expected
        await producer.say("task_completed")
        assert code(await call(client, "cancel")) == "task_ended"


async def test_what_the_engine_says_of_a_task_cannot_be_published_by_a_client() -> None:
    async with attached() as (_, _producer, client):
        for event in ("task_input", "task_stalled", "task_cancel_accepted"):
            reply = await client.ask({"t": "pub", "c": CHANNEL, "e": event, "i": "p", "d": {}})
            assert code(reply) == "permission_denied"
        reply = await client.ask({"t": "pub", "c": CHANNEL, "e": "task_progress", "i": "p", "d": {"percent": 1}})
        assert reply["t"] == "ok"


async def test_a_status_is_the_snapshot() -> None:
    async with attached() as (_, producer, client):
        await producer.say("task_progress", percent=40, stage="test")
        status = (await call(client, "status"))["d"]
        assert (status["state"], status["percent"], status["stage"]) == ("running", 40, "test")


async def test_a_slow_producer_does_not_keep_its_callers_connection_waiting() -> None:
    async with attached() as (engine, _, client):

        async def slow(payload: bytes) -> bytes:
            await trio.sleep(0.05)
            return b""

        engine.broker.listeners[CHANNEL] = slow
        await client.say({"t": "call", "c": CHANNEL, "e": "refresh", "i": "c"})
        assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"
        assert (await client.json())["i"] == "c"


async def test_a_connection_may_have_only_so_many_calls_under_way() -> None:
    async with attached() as (engine, _, client):
        engine.broker.listeners[CHANNEL] = silence
        for number in range(17):
            await client.say({"t": "call", "c": CHANNEL, "e": "refresh", "i": str(number)})
        replies = {reply["i"]: code(reply) for reply in [await client.json() for _ in range(17)]}
        assert replies.pop("16") == "limit_exceeded"
        assert set(replies.values()) == {"no_answer"}


async def test_a_call_leaves_no_interest_behind() -> None:
    async with attached() as (engine, _, client):
        await call(client, "refresh")
        assert engine.server.statistics().channels == 0


# --- what is stored is true ----------------------------------------------------------------------------------------


async def test_a_viewer_whose_answer_is_stored_is_told_so_although_the_producer_went_away() -> None:
    async with attached() as (engine, producer, client):
        await producer.say("task_confirmation_required", ask="q")
        engine.broker.listeners[CHANNEL] = gone_after_a_ping(producer)
        reply = await call(client, "approve", {"by": "ann"})
        assert (reply["t"], reply["d"]) == ("ok", {"delivered": False})
        producer.attach()
        late = await call(client, "reject", {"by": "bob"})
        assert (code(late), late["d"]["message"]) == ("already_answered", "already answered by ann")
        producer.detach()


async def test_a_viewer_whose_stop_is_stored_is_told_so_although_the_producer_went_away() -> None:
    async with attached() as (engine, producer, client):
        engine.broker.listeners[CHANNEL] = gone_after_a_ping(producer)
        reply = await call(client, "cancel")
        assert (reply["t"], reply["d"]) == ("ok", {"delivered": False})


def gone_after_a_ping(producer: Producer) -> Callable[[bytes], Awaitable[bytes]]:
    """A producer whose connection is lost once it has answered a ping."""

    async def listener(payload: bytes) -> bytes:
        producer.detach()
        return b""

    return listener


async def test_an_operator_who_listens_to_everything_is_no_producer() -> None:
    async with attached() as (engine, _, client):

        async def overhear(payload: bytes) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

        engine.broker.listeners[CHANNEL] = overhear
        stored = engine.broker.streams["task"].newest(CHANNEL)
        assert code(await call(client, "cancel")) == "no_producer"
        assert engine.broker.streams["task"].newest(CHANNEL) == stored


async def test_that_an_answer_was_delivered_is_seen_before_its_sender_hears_ok() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await producer.say("task_confirmation_required", ask="q")
        await watch(viewer)
        assert (await call(client, "approve", {"by": "ann"}))["t"] == "ok"
        assert await events(viewer, 2) == [
            ("task_input", {"ask": "q", "by": "ann", "verb": "approve", "value": True, "state": "running"}),
            ("task_input_delivered", {"ask": "q", "state": "running"}),
        ]
        status = (await call(client, "status"))["d"]
        assert status["ask"]["delivered"]
        assert status["ask"]["call"] == producer.calls[-1]["i"]


async def test_who_asks_again_while_an_answer_is_being_delivered_gets_it_too() -> None:
    # The producer of the reply is not the one that asks again: the confirmation of the one is none for the other.
    async with attached() as (engine, producer, client):
        await producer.say("task_confirmation_required", ask="q")
        take = engine.broker.listeners[CHANNEL]
        calls: list[bytes] = []

        async def slow(payload: bytes) -> bytes:
            reply = await take(payload)
            if payload != PING:
                calls.append(payload)
            if len(calls) == 1:
                calls.append(b"")
                await producer.say("task_confirmation_required", ask="q")
            return reply

        engine.broker.listeners[CHANNEL] = slow
        assert (await call(client, "approve"))["t"] == "ok"
        while len(producer.calls) < 2:
            await trio.sleep(0.05)
        first, second = producer.calls
        assert (first["d"], first["i"]) == (second["d"], second["i"])
        while "delivered" not in (await call(client, "status"))["d"]["ask"]:
            await trio.sleep(0.05)


async def test_an_answer_that_a_producer_refuses_counts_as_delivered() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        await producer.say("task_confirmation_required", ask="q")
        await watch(viewer)
        producer.answer = b'{"v":1,"t":"err","d":{"code":"refused","message":"too late"}}'
        assert code(await call(client, "approve")) == "refused"
        delivered = (await events(viewer, 2))[1]
        assert delivered == ("task_input_delivered", {"ask": "q", "message": "too late", "state": "running"})


async def test_an_answer_is_no_larger_than_what_a_snapshot_keeps() -> None:
    async with attached(max_message_bytes=1 << 20) as (_, producer, client):
        await producer.say("task_confirmation_required", ask="q", kind="input")
        fits = "x" * (128 * 1024 - 2)
        reply = await call(client, "input", {"value": fits + "x"})
        assert (code(reply), reply["d"]["message"]) == ("too_large", "an answer has at most 131,072 bytes as JSON")
        assert (await call(client, "input", {"value": fits}))["t"] == "ok"
