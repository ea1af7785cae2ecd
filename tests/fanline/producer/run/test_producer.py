"""A run of a task without a job and without the exporter, and what a job may not pass in."""

import dataclasses
import datetime
import enum
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import greenlet  # type: ignore[import-untyped]
import msgspec
import pytest

import fanline
from fanline.producer.checks import MAX_JSON_BYTES, TaskSettings, check_settings
from fanline.producer.run.producer import Producer
from fanline.protocol.tasks.events import TaskEvent

LATER = 1e12


def _producer() -> Producer:
    return Producer(check_settings(TaskSettings("job", None, None, 1, 10.0, None, None, 5.0)))


def _events(producer: Producer) -> list[str]:
    return [message.event.removeprefix("task_") for message in producer.take(LATER, 1000)]


def _task() -> tuple[fanline.SyncTask, Producer]:
    producer = _producer()
    return fanline.SyncTask(producer), producer


def _reported(producer: Producer) -> list[dict[str, Any]]:
    """The data of what the job has reported since the start."""
    return [message.data for message in producer.take(LATER, 1000)][1:]


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ({"percent": 101}, {"percent": 100}),
        ({"percent": -0.1}, {"percent": 0}),
        ({"percent": math.nan}, {}),
        ({"percent": math.inf}, {"percent": 100}),
        ({"percent": "three"}, {}),
        ({"percent": True}, {}),
        ({"done": -1}, {"done": 0}),
        ({"done": 1, "total": math.nan}, {"done": 1}),
        ({"total": 10**400}, {"total": 1e300}),
    ],
)
def test_progress_that_is_none_counts_as_the_nearest_or_is_left_out_with_one_warning(
    arguments: dict[str, Any], data: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task, producer = _task()
    for _ in range(2):
        task.progress(**arguments)
    assert _reported(producer) == [data]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"task job: {next(reversed(arguments))}: ")


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ({"percent": Decimal("33.5")}, {"percent": 33.5}),
        ({"percent": Fraction(1, 4)}, {"percent": 0.25}),
        ({"percent": 100.00000000000001}, {"percent": 100}),
        ({"percent": "42"}, {"percent": 42}),
        ({"done": 10**20}, {"done": 1e20}),
        ({"message": 3, "stage": b"x"}, {"message": "3", "stage": "x"}),
    ],
)
def test_numbers_and_texts_of_any_kind_are_reported_without_a_word(
    arguments: dict[str, Any], data: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task, producer = _task()
    task.progress(**arguments)
    assert _reported(producer) == [data]
    assert not caplog.records


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    on: datetime.date


class Array:
    """As numpy has it."""

    def tolist(self) -> list[Any]:
        return [1, [2.5, math.nan]]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({1}, [1]),
        (2**64, 2.0**64),
        ("\ud800", "?"),
        (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (datetime.timedelta(minutes=1), 60.0),
        ({"on": Point(1, datetime.date(2026, 1, 2))}, {"on": {"x": 1, "on": "2026-01-02"}}),
        ([Decimal("0.1"), Decimal("NaN"), Colour.RED], [0.1, None, "red"]),
        ({Colour.RED: 1, (1, 2): b"\xff", 3: Path("/x")}, {"red": 1, "(1, 2)": "\ufffd", "3": "/x"}),
        (Array(), [1, [2.5, None]]),
        (ValueError("no"), "ValueError: no"),
        ({"loss": math.nan, "best": [math.inf, 1]}, {"loss": None, "best": [None, 1]}),
    ],
)
def test_a_result_that_json_has_no_form_for_is_converted(
    value: object, plain: object, caplog: pytest.LogCaptureFixture
) -> None:
    task, producer = _task()
    task.result(value)
    producer.end(None)
    assert msgspec.json.decode(_reported(producer)[-1]["result"]) == plain
    assert not caplog.records


def _recursive() -> list[Any]:
    deep: list[Any] = [1]
    deep.append(deep)
    return deep


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        ("x" * 2_000_000, "x" * 400_000),
        ({"rows": [{"id": number} for number in range(200_000)]}, {"rows": [{"id": 0}, {"id": 1}]}),
        (_recursive(), [1, "<refers back to itself>"]),
    ],
)
def test_a_result_that_does_not_fit_is_cut_with_a_warning(
    value: object, begins: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task, producer = _task()
    task.result(value)
    producer.end(None)
    raw = _reported(producer)[-1]["result"]
    found = msgspec.json.decode(raw)
    assert MAX_JSON_BYTES * 0.8 < len(raw) <= MAX_JSON_BYTES or len(raw) < 100
    assert found["rows"][:2] == begins["rows"] if isinstance(found, dict) else found[: len(begins)] == begins
    assert [record.getMessage()[:52] for record in caplog.records] == [
        "task job: a part of the result is left out: " + ("it refer" if isinstance(found, list) else "as JSON ")
    ]


def test_a_result_that_no_snapshot_keeps_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    task, _ = _task()
    task.result("x" * 200_000)
    assert "viewers who come later do not get the result" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"id": "a b"}, ValueError),
        ({"id": ""}, ValueError),
        ({"id": "x" * 300}, ValueError),
        ({"title": 3}, TypeError),
        ({"kind": "x" * 257}, ValueError),
        ({"fields": "lease"}, TypeError),
        ({"attempt": 0}, ValueError),
        ({"attempt": 1.5}, TypeError),
        ({"heartbeat": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"linger": math.inf}, ValueError),
        ({"nats": "http://somewhere"}, ValueError),
    ],
)
def test_a_task_with_invalid_settings_is_refused_when_it_is_created(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        fanline.Task(**arguments)


def test_a_task_may_be_named_by_its_channel() -> None:
    assert fanline.Task("task:x").id == fanline.Task("x").id == "x"


def test_a_task_without_an_id_gets_a_random_one() -> None:
    assert fanline.Task().id != fanline.Task().id


@pytest.mark.parametrize(("arguments", "error"), [({"kind": "vote"}, ValueError), ({"deadline": 0}, ValueError)])
def test_a_question_that_cannot_be_put_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    task, producer = _task()
    with pytest.raises(error):
        task.ask("Deploy?", **arguments)
    assert _events(producer) == ["started"]


def test_output_is_text_on_one_of_two_streams(caplog: pytest.LogCaptureFixture) -> None:
    task, producer = _task()
    task.log("x", stream="stdlog")  # type: ignore[arg-type]
    task.log(None)
    task.log([b"raw", 3])
    assert _reported(producer) == [{"lines": ["x", "None", "[b'raw', 3]"], "stream": "stdout"}]
    assert "stream: not one of stdout, stderr" in caplog.text


def test_a_text_is_cut_and_what_utf8_cannot_encode_is_replaced() -> None:
    task, producer = _task()
    task.progress(message="\ud800" + "x" * 20_000)
    message = producer.take(LATER, 9)[1].data["message"]
    assert (message[:2], message[-3:], len(message)) == ("?x", "...", 16_384)


def test_nothing_is_reported_after_the_end() -> None:
    task, producer = _task()
    producer.end(None)
    task.log("too late")
    task.progress(3)
    task.pause()
    producer.end(ValueError())
    assert _events(producer) == ["started", "completed"]


@pytest.mark.parametrize(
    ("error", "event", "data"),
    [
        (SystemExit(0), TaskEvent.COMPLETED, {}),
        (SystemExit(3), TaskEvent.FAILED, {"error": "SystemExit: 3"}),
        (ValueError(), TaskEvent.FAILED, {"error": "ValueError"}),
        (KeyboardInterrupt(), TaskEvent.CANCELLED, {}),
        (fanline.TaskCancelled(5), TaskEvent.CANCELLED, {"by": "5"}),  # type: ignore[arg-type]  # a job may raise it
        (greenlet.GreenletExit(), TaskEvent.CANCELLED, {}),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), TaskEvent.CANCELLED, {}),
        (fanline.TaskCancelled("ann"), TaskEvent.CANCELLED, {"by": "ann"}),
        (fanline.TaskRetrying("no disk", delay=3), TaskEvent.RETRYING, {"error": "no disk", "delay": 3}),
        (fanline.TaskRetrying(), TaskEvent.RETRYING, {}),
        (fanline.TaskRetrying("no disk", delay="soon"), TaskEvent.RETRYING, {"error": "no disk"}),  # type: ignore[arg-type]
    ],
)
def test_how_a_block_ends_is_how_the_task_ends(error: BaseException, event: TaskEvent, data: dict[str, Any]) -> None:
    producer = _producer()
    producer.end(error)
    last = producer.take(LATER, 9)[-1]
    assert (last.event, last.data) == (event, data)


def test_a_cancelled_sync_task_raises_once_and_then_may_clean_up() -> None:
    task, producer = _task()
    replies: list[bytes] = []
    producer.handle_call("cancel", None, "ann", replies.append)
    producer.handle_call("cancel", None, "bob", replies.append)
    assert task.cancelled
    with pytest.raises(fanline.TaskCancelled) as caught:
        task.log("is kept")
    assert caught.value.by == "ann"
    task.log("cleaning up")
    assert replies == [b'{"v":1,"t":"ok"}'] * 2


@pytest.mark.parametrize("verb", ["paint", "cancel"])
def test_a_job_that_takes_calls_gets_those_that_came_before_it_did(verb: str) -> None:
    producer = Producer(TaskSettings("job", None, None, 1, 10.0, None, None, 5.0, takes_calls=True))
    task, replies = fanline.SyncTask(producer), list[bytes]()
    producer.handle_call(verb, {"colour": "red"}, "ann", replies.append)
    assert not task.cancelled
    call = next(task.calls())
    assert (call.verb, call.data, call.by) == (verb, {"colour": "red"}, "ann")
    call.answer()
    assert [msgspec.json.decode(reply)["t"] for reply in replies] == ["ok"]


def test_calls_that_were_not_taken_before_the_end_are_refused() -> None:
    task, producer = _task()
    replies: list[bytes] = []
    calls = task.calls()
    producer.handle_call("paint", None, "ann", replies.append)
    producer.end(None)
    producer.handle_call("paint", None, "ann", replies.append)
    assert list(calls) == []
    assert [b"has ended" in reply for reply in replies] == [True, True]


def test_a_title_that_utf8_cannot_encode_is_reported_with_a_replacement() -> None:
    settings = TaskSettings("x", "caf\udce9", None, None, 1.0, None, None, 1.0)
    assert check_settings(settings).title == "caf?"


def test_fields_are_reported_as_their_json_has_them() -> None:
    settings = TaskSettings("x", None, None, None, 1.0, None, None, 1.0, {"role": "buyer", "parties": ("a", "b")})
    assert check_settings(settings).fields == {"role": "buyer", "parties": ["a", "b"]}


def test_fields_that_json_has_no_form_for_are_converted_and_those_that_are_too_large_are_cut_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {"on": datetime.date(2026, 1, 2), "text": "x" * 5000, "more": 1}
    found = check_settings(TaskSettings("x", None, None, None, 1.0, None, None, 1.0, fields)).fields
    assert found is not None
    assert found["on"] == "2026-01-02"
    assert len(msgspec.json.encode(found)) <= 4096
    assert "fields" in caplog.text


class _TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (_TextlessError(), "_TextlessError"),
        (ExceptionGroup("several", [ValueError("first"), OSError("second")]), "ValueError: first"),
        (fanline.ServerError("refused", "not now"), "not now (refused)"),
    ],
)
def test_a_failure_is_reported_by_its_cause(error: Exception, text: str) -> None:
    producer = _producer()
    producer.end(error)
    assert producer.take(LATER, 1000)[-1].data["error"] == text


def test_a_call_can_be_answered_only_once() -> None:
    task, producer = _task()
    replies: list[bytes] = []
    calls = task.calls()
    producer.handle_call("paint", None, "ann", replies.append)
    call = next(iter(calls))
    call.answer({datetime.date(2026, 1, 2)})
    with pytest.raises(RuntimeError, match="already been answered"):
        call.refuse("no")
    assert replies == [b'{"v":1,"t":"ok","d":["2026-01-02"]}']


def test_one_question_at_a_time() -> None:
    producer = _producer()
    first = producer.ask("first?", "approve", None, None)
    with pytest.raises(RuntimeError, match="one question at a time"):
        producer.ask("second?", "approve", None, None)
    producer.end_ask(first)
    assert _events(producer) == ["started", "confirmation_required", "resumed"]
    producer.end_ask(producer.ask("third?", "approve", None, None))


def test_the_exporter_is_woken_only_if_it_would_look_too_late() -> None:
    producer, woken = _producer(), list[int]()
    producer.attach(lambda: woken.append(1))
    producer.take(LATER, 9)
    assert producer.take(0.0, 9) == []
    producer.log("a", "stdout")
    assert len(woken) == 1
    for _ in range(100):
        producer.log("b", "stdout")
    assert len(woken) == 1


@contextmanager
def _held_by_another_thread(producer: Producer) -> Iterator[None]:
    """While one of the parent's threads holds the locks of a task."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with producer._lock, producer.settled._condition:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        yield
    finally:
        release.set()
        thread.join()


def test_a_forked_copy_of_a_task_reports_nothing_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task, producer = _task()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with _held_by_another_thread(producer):  # of the parent, and for ever
        for _ in range(2):
            task.log("x")
        assert [record.getMessage()[:43] for record in caplog.records] == [
            "task job: a forked process has only a copy "
        ]
        assert list(task.calls()) == []
        producer.end(None)
        assert producer.settled.done()
        with pytest.raises(RuntimeError, match="forked"):
            task.ask("Deploy?")
    monkeypatch.undo()
    assert _events(producer) == ["started"]


# --- what is delivered more than once ------------------------------------------------------------------------------


def test_an_answer_that_is_delivered_twice_is_taken_once_and_confirmed_twice() -> None:
    producer = _producer()
    replies: list[bytes] = []
    answer = producer.ask("first?", "approve", None, None)
    ask = producer.take(LATER, 9)[-1].data["ask"]
    producer.handle_call("approve", {"ask": ask, "value": 1}, "ann", replies.append)
    producer.handle_call("approve", {"ask": ask, "value": 2}, "ann", replies.append)
    producer.end_ask(answer)
    producer.handle_call("approve", {"ask": ask, "value": 3}, "ann", replies.append)
    assert answer.result().value == 1
    assert replies == [b'{"v":1,"t":"ok"}'] * 3


def test_an_answer_that_comes_when_the_job_no_longer_waits_is_refused() -> None:
    producer = _producer()
    replies: list[bytes] = []
    answer = producer.ask("first?", "approve", None, None)
    ask = producer.take(LATER, 9)[-1].data["ask"]
    answer.cancel()
    producer.handle_call("approve", {"ask": ask, "value": 1}, "ann", replies.append)
    producer.end_ask(answer)
    producer.handle_call("approve", {"ask": ask, "value": 1}, "ann", replies.append)
    assert [b"refused" in reply for reply in replies] == [True, True]


def test_a_call_that_is_delivered_twice_is_taken_once_and_gets_the_same_reply_twice() -> None:
    task, producer = _task()
    calls, replies = task.calls(), list[bytes]()
    for call_id in ("c1", "c1", "c2"):
        producer.handle_call("cancel", None, "ann", replies.append, call_id)
    first, second = next(calls), next(calls)
    assert (first.id, second.id) == ("c1", "c2")
    first.refuse("not now")
    producer.handle_call("cancel", None, "ann", replies.append, "c1")
    assert [b"not now" in reply for reply in replies] == [True] * 3
    producer.end(None)
    assert list(calls) == []


def test_calls_without_an_id_are_all_taken() -> None:
    task, producer = _task()
    calls = task.calls()
    for _ in range(2):
        producer.handle_call("paint", None, "ann", lambda _: None)
    assert [next(calls).verb, next(calls).verb] == ["paint", "paint"]


def test_a_stop_of_another_attempt_is_not_for_this_run() -> None:
    task, producer = _task()
    replies: list[bytes] = []
    producer.handle_call("cancel", {"deadline": 9, "attempt": 2}, "ann", replies.append)
    assert (task.cancelled, replies) == (False, [])
    producer.handle_call("cancel", {"deadline": 9, "attempt": 1}, "ann", replies.append)
    assert (task.cancelled, replies) == (True, [b'{"v":1,"t":"ok"}'])
