"""Calls in detail: what is recorded when a stop is refused, what the producer is sent, what callers are told."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
import trio

from fanline.engine.bus.interface import PING
from fanline.engine.settings import EngineSettings
from fanline.protocol.tasks.events import MAX_TEXT
from tests.engine.running import RunningEngine, running_engine
from tests.engine.task_channels import CHANNEL, Producer, call, watch
from tests.support.raw_client import RawClient, connect, connect_raw

NOT_NOW = b'{"v":1,"t":"err","d":{"code":"refused","message":"not now"}}'


class Scene(NamedTuple):
    """An engine, the attached producer of a running task, a client that calls, and one that watches."""

    engine: RunningEngine
    producer: Producer
    client: RawClient
    viewer: RawClient

    def answer_with(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        async def listener(payload: bytes) -> bytes:
            return b"" if payload == PING else await answer(payload)

        self.engine.broker.listeners[CHANNEL] = listener

    async def seen(self, last: str) -> list[str]:
        """The events that the viewer is sent, up to this one."""
        names = list[str]()
        while last not in names:
            names.append((await self.viewer.json())["e"])
        return names

    def stored(self) -> list[dict[str, Any]]:
        """All events of the task."""
        page = self.engine.broker.streams["task"].read(CHANNEL, 1)
        return [msgspec.json.decode(stored.payload) for stored in page.messages]


@asynccontextmanager
async def scene(call_timeout: float = 0.2, max_message_bytes: int = 65536) -> AsyncIterator[Scene]:
    with trio.fail_after(30):
        settings = EngineSettings(call_timeout=call_timeout, max_message_bytes=max_message_bytes)
        async with running_engine(settings) as engine:
            producer = Producer(engine.broker)
            producer.attach()
            await producer.say("task_started")
            async with connect(engine.host, engine.port) as client, connect(engine.host, engine.port) as viewer:
                await watch(viewer)
                yield Scene(engine, producer, client, viewer)


def error(reply: dict[str, Any]) -> tuple[str, str]:
    assert reply["t"] == "err", reply
    return reply["d"]["code"], reply["d"]["message"]


# --- stops --------------------------------------------------------------------------------------------------------


async def test_a_refusal_by_a_producer_that_has_begun_again_stops_nothing_and_is_not_recorded() -> None:
    async with scene() as at:

        async def begin_again(payload: bytes) -> bytes:
            await at.producer.say("task_started", attempt=2)
            await at.seen("task_started")
            return NOT_NOW

        at.answer_with(begin_again)
        assert error(await call(at.client, "cancel")) == ("refused", "not now")
        await at.producer.say("end_of_test")
        assert await at.seen("end_of_test") == ["end_of_test"]


async def test_a_refusal_by_a_producer_that_has_agreed_already_is_not_recorded() -> None:
    async with scene() as at:

        async def agree_and_refuse(payload: bytes) -> bytes:
            await at.producer.say("task_cancel_accepted", attempt=1)
            await at.seen("task_cancel_accepted")
            return NOT_NOW

        at.answer_with(agree_and_refuse)
        assert error(await call(at.client, "cancel")) == ("refused", "not now")
        await at.producer.say("end_of_test")
        assert await at.seen("end_of_test") == ["end_of_test"]


async def test_a_refusal_that_is_recorded_already_is_not_taken_for_the_answer_to_the_next_request() -> None:
    async with scene() as at:

        async def be_asked_again(payload: bytes) -> bytes:
            await at.producer.say("task_cancel_refused", attempt=1)  # the task monitor was faster
            await at.producer.say("task_cancel_requested", attempt=1, by="bob", deadline=9, call="next")
            await at.seen("task_cancel_refused")
            await at.seen("task_cancel_requested")
            return NOT_NOW

        at.answer_with(be_asked_again)
        assert error(await call(at.client, "cancel")) == ("refused", "not now")
        await at.producer.say("end_of_test")
        assert await at.seen("end_of_test") == ["end_of_test"]


async def test_a_stop_that_the_producer_does_not_answer_stays_requested() -> None:
    async with scene() as at:

        async def say_nothing(payload: bytes) -> bytes:
            await trio.Event().wait()
            return b""

        at.answer_with(say_nothing)
        assert error(await call(at.client, "refresh")) == (
            "no_answer",
            f"the producer of {CHANNEL} did not answer within 0.2 seconds",
        )
        assert (await call(at.client, "cancel"))["d"] == {"delivered": False}
        await at.producer.say("end_of_test")
        assert await at.seen("end_of_test") == ["task_cancel_requested", "end_of_test"]


async def test_the_reason_of_a_refusal_is_recorded_as_far_as_an_event_may_be_long() -> None:
    async with scene() as at:
        reason = "no " * MAX_TEXT
        at.producer.answer = msgspec.json.encode({"v": 1, "t": "err", "d": {"code": "refused", "message": reason}})
        assert error(await call(at.client, "cancel")) == ("refused", reason)
        *_, refused = at.stored()
        assert (refused["e"], refused["d"]["message"]) == ("task_cancel_refused", reason[:MAX_TEXT])


async def test_a_forced_end_answers_with_nothing() -> None:
    async with scene() as at:
        at.producer.detach()
        reply = await call(at.client, "cancel", {"force": True, "by": "ann"})
        assert (reply["t"], reply["c"], reply.get("d")) == ("ok", CHANNEL, None)


async def test_force_is_for_stops_alone_and_for_producers_that_are_gone() -> None:
    async with scene() as at:
        assert (await call(at.client, "cancel", {"force": True}))["d"] == {"done": True}
        at.producer.detach()
        assert error(await call(at.client, "refresh", {"force": True}))[0] == "no_producer"


# --- what is recorded and what is sent ----------------------------------------------------------------------------


async def test_what_is_recorded_says_who_when_and_by_which_call() -> None:
    async with scene() as at:
        before = time.time_ns() // 1_000_000
        await call(at.client, "cancel", {"by": "ann", "deadline": 9})
        requested, accepted = at.stored()[-2:]
        for event in (requested, accepted):
            assert (event["t"], event["u"], event["d"]["by"], event["d"]["attempt"]) == ("pub", "ann", "ann", 1)
            assert before <= event["ts"] <= time.time_ns() // 1_000_000
            assert event["i"] == event["d"]["call"]
            assert len(event["i"]) == 16
        assert requested["i"] != accepted["i"]


async def test_the_producer_is_sent_an_envelope_with_everything_it_needs() -> None:
    async with scene() as at:
        before = time.time_ns() // 1_000_000
        for _ in range(2):
            await call(at.client, "refresh", {"deep": True, "by": "ann"})
        first, second = at.producer.calls
        assert before <= first.pop("ts") <= time.time_ns() // 1_000_000
        assert len(first["i"]) == 16
        assert first.pop("i") != second["i"]
        data = {"deep": True, "by": "ann"}
        assert first == {"v": 1, "t": "call", "c": CHANNEL, "e": "refresh", "u": "ann", "d": data}


async def test_a_caller_without_a_name_has_an_alias_that_does_not_give_its_session_away() -> None:
    async with scene() as at, connect_raw(at.engine.host, at.engine.port) as client:
        await client.upgrade()
        welcome = await client.json()
        await call(client, "refresh")
        await call(client, "refresh")
        first, second = (asked["u"] for asked in at.producer.calls)
        assert first == second
        name, _, alias = first.partition(" ")
        assert (name, len(alias)) == ("session", 8)
        assert alias not in welcome["d"]["session"]


async def test_two_callers_without_a_name_have_two_aliases() -> None:
    async with scene() as at:
        await call(at.client, "refresh")
        await call(at.viewer, "refresh")
        first, second = (asked["u"] for asked in at.producer.calls)
        assert first != second


@pytest.mark.parametrize("verb", ["cancel", "input"])
async def test_a_task_that_ends_while_its_producer_answers_is_no_fault_of_the_caller(verb: str) -> None:
    async with scene() as at:

        async def end(payload: bytes) -> bytes:
            await at.producer.say("task_completed")
            await at.seen("task_completed")
            return b"1"

        at.answer_with(end)
        assert (await call(at.client, verb, {"value": 1}))["d"] == 1


async def test_a_rejection_may_carry_a_value_and_a_choice_is_no_bound_to_it() -> None:
    async with scene() as at:
        await at.producer.say("task_confirmation_required", ask="q", options=["blue"])
        assert (await call(at.client, "reject", {"value": False}))["t"] == "ok"
        assert at.producer.calls[-1]["d"] == {"ask": "q", "value": False}
        await at.producer.say("task_confirmation_required", ask="r")
        assert (await call(at.client, "reject", {"value": "too late"}))["t"] == "ok"
        assert at.producer.calls[-1]["d"] == {"ask": "r", "value": "too late"}


async def test_input_beside_a_question_to_approve_answers_nothing() -> None:
    async with scene() as at:
        await at.producer.say("task_confirmation_required", ask="q")
        assert (await call(at.client, "input", {"value": 7, "by": "ann"}))["t"] == "ok"
        assert at.producer.calls[-1]["d"] == {"value": 7}
        assert at.stored()[-1]["d"].keys() == {"by", "attempt", "call"}
        assert (await call(at.client, "approve"))["t"] == "ok"


async def test_input_after_its_question_was_answered_goes_to_the_producer() -> None:
    async with scene() as at:
        await at.producer.say("task_confirmation_required", ask="q", kind="input")
        assert (await call(at.client, "input", {"value": 1}))["t"] == "ok"
        assert (await call(at.client, "input", {"value": 2}))["t"] == "ok"
        assert [asked["d"] for asked in at.producer.calls] == [{"ask": "q", "value": 1}, {"value": 2}]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "data", "text"),
    [
        ("", None, "`call` needs a verb (`e`), as in cancel"),
        ("input", {}, '`input` needs a value: {"value": ...}'),
        ("approve", None, f"{CHANNEL} asks nothing"),
    ],
)
async def test_a_call_that_makes_no_sense_is_told_why(verb: str, data: Any, text: str) -> None:
    async with scene() as at:
        assert error(await call(at.client, verb, data))[1] == text


async def test_refusals_name_the_task_and_its_state() -> None:
    async with scene() as at:
        await at.producer.say("task_confirmation_required", ask="q", kind="input")
        assert error(await call(at.client, "approve"))[1] == f"{CHANNEL} asks for a value: answer with `input`"
        await at.producer.say("task_failed")
        assert error(await call(at.client, "cancel"))[1] == f"{CHANNEL} has ended (failed)"
        reply = await at.client.ask({"t": "call", "c": "room:x", "e": "cancel", "i": "c"})
        assert error(reply) == ("not_supported", "room:x is no task (namespace room)")


async def test_a_question_may_be_approved_again_only_until_it_is_answered() -> None:
    async with scene() as at:
        await at.producer.say("task_confirmation_required", ask="q", kind="input", options=["a"])
        assert (await call(at.client, "input", {"value": "a", "by": "ann"}))["t"] == "ok"
        for verb, data in (("approve", {}), ("input", {"ask": "q", "value": "b"})):
            assert error(await call(at.client, verb, data)) == ("already_answered", "already answered by ann")


@pytest.mark.parametrize("answer", [b"{", b'{"v":9,"t":"ok"}'])
async def test_an_answer_that_cannot_be_read_is_said_to_be_no_json(answer: bytes) -> None:
    async with scene() as at:
        at.producer.answer = answer
        assert error(await call(at.client, "refresh")) == ("refused", "the producer's answer is not JSON")


async def test_a_map_without_a_type_is_an_answer_of_its_own() -> None:
    async with scene() as at:
        at.producer.answer = b'{"v":9,"d":1}'
        assert (await call(at.client, "refresh"))["d"] == {"v": 9, "d": 1}


async def test_a_call_that_fails_in_us_is_logged_once_and_frees_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scene() as at:

        async def fail(payload: bytes) -> bytes:
            raise ZeroDivisionError

        at.answer_with(fail)
        answers = {error(await call(at.client, "refresh")) for _ in range(17)}
        assert answers == {("internal", "the command failed inside the server; it may have been done")}
    failures = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert failures == [f"{CHANNEL}: a call failed"]


async def test_large_calls_are_refused_while_others_of_the_connection_take_a_megabyte() -> None:
    async with scene(call_timeout=5, max_message_bytes=1 << 20) as at:
        release = trio.Event()

        async def wait(payload: bytes) -> bytes:
            await release.wait()
            return b"1"

        at.answer_with(wait)
        large = {"t": "call", "c": CHANNEL, "e": "refresh", "d": {"value": "x" * 400_000}}
        for number in range(2):
            await at.client.say(large | {"i": str(number)})
        assert error(await at.client.ask(large | {"i": "2"}))[0] == "limit_exceeded"
        release.set()
        assert {(await at.client.json())["t"] for _ in range(2)} == {"ok"}
        assert (await at.client.ask(large | {"i": "3"}))["t"] == "ok"


async def test_sixteen_calls_may_be_under_way_and_each_that_ends_makes_room() -> None:
    async with scene(call_timeout=5) as at:
        release = trio.Event()

        async def wait(payload: bytes) -> bytes:
            await release.wait()
            return b"1"

        at.answer_with(wait)
        for number in range(16):
            await at.client.say({"t": "call", "c": CHANNEL, "e": "refresh", "i": str(number)})
        code, text = error(await call(at.client, "refresh", request="17"))
        assert (code, text) == ("limit_exceeded", "16 calls of this connection wait for their answer")
        release.set()
        assert {(await at.client.json())["t"] for _ in range(16)} == {"ok"}
        assert (await call(at.client, "refresh"))["t"] == "ok"


async def test_an_event_that_does_not_come_back_may_have_been_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.sessions.calls.calls._STORED_SECONDS", 0.05)
    async with scene() as at:
        monkeypatch.setattr(at.engine.bus, "hand_over", lambda *message: None)
        code, text = error(await call(at.client, "cancel"))
        assert (code, text) == (
            "unavailable",
            "task_cancel_requested was stored and did not come back; it may have been done",
        )
        assert at.producer.calls == []


@pytest.mark.parametrize(("said", "verb", "value"), [("yes", "approve", True), ("not now", "reject", "not now")])
async def test_the_input_of_a_plain_client_answers_a_question_to_approve(said: str, verb: str, value: Any) -> None:
    # S2-73
    async with scene() as at, connect(at.engine.host, at.engine.port, None) as plain:
        await at.producer.say("task_confirmation_required", ask="q")
        answer = await plain.ask({"type": "task_input", "task_id": CHANNEL.removeprefix("task:"), "input": said})
        assert (answer["type"], answer["success"]) == ("input_result", True)
        assert (at.producer.calls[-1]["e"], at.producer.calls[-1]["d"]) == (verb, {"ask": "q", "value": value})
        again = await plain.ask({"type": "task_input", "task_id": CHANNEL.removeprefix("task:"), "input": "on"})
        assert (again["success"], at.producer.calls[-1]["e"]) == (True, "input")
