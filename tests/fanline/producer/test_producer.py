"""A run of a task without a job and without the exporter, and what a job may not pass in."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import greenlet  # type: ignore[import-untyped]
import pytest

import fanline
from fanline.producer.checks import (
    MAX_JSON_BYTES,
    TaskSettings,
    check_settings,
    json_of,
    progress_data,
)
from fanline.producer.producer import Producer
from fanline.protocol.tasks.events import TaskEvent

LATER = 1e12


def _producer() -> Producer:
    return Producer(check_settings(TaskSettings("job", None, None, 1, 10.0, None, None, 5.0)))


def _events(producer: Producer) -> list[str]:
    return [message.event.removeprefix("task_") for message in producer.take(LATER, 1000)]


def _task() -> tuple[fanline.SyncTask, Producer]:
    producer = _producer()
    return fanline.SyncTask(producer), producer


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"percent": 101}, ValueError),
        ({"percent": -0.1}, ValueError),
        ({"percent": math.nan}, ValueError),
        ({"percent": math.inf}, ValueError),
        ({"percent": "3"}, TypeError),
        ({"percent": True}, TypeError),
        ({"done": -1}, ValueError),
        ({"done": 1, "total": math.nan}, ValueError),
        ({"total": 10**400}, ValueError),
        ({"message": 3}, TypeError),
        ({"stage": b"x"}, TypeError),
    ],
)
def test_invalid_progress_is_refused_at_the_call(arguments: dict[str, Any], error: type[Exception]) -> None:
    task, producer = _task()
    with pytest.raises(error, match=next(reversed(arguments))):
        task.progress(**arguments)
    assert _events(producer) == ["started"]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({1, 2}, TypeError),
        (object(), TypeError),
        (2**64, ValueError),
        ("\ud800", ValueError),
        ("x" * MAX_JSON_BYTES, ValueError),
    ],
)
def test_a_result_that_json_cannot_represent_is_refused_at_the_call(value: object, error: type[Exception]) -> None:
    task, _ = _task()
    with pytest.raises(error, match="the result"):
        task.result(value)


def test_a_recursive_result_is_refused() -> None:
    task, _ = _task()
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(ValueError, match="the result"):
        task.result(deep)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"id": "a b"}, ValueError),
        ({"id": ""}, ValueError),
        ({"id": "x" * 300}, ValueError),
        ({"title": 3}, TypeError),
        ({"kind": "x" * 257}, ValueError),
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


def test_a_task_without_an_id_gets_a_random_one() -> None:
    assert fanline.Task().id != fanline.Task().id


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"kind": "vote"}, ValueError), ({"deadline": 0}, ValueError), ({"options": [1]}, TypeError)],
)
def test_an_invalid_question_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    task, producer = _task()
    with pytest.raises(error):
        task.ask("Deploy?", **arguments)
    assert _events(producer) == ["started"]


def test_output_is_text_on_one_of_two_streams() -> None:
    task, _ = _task()
    with pytest.raises(ValueError, match="stdout, stderr"):
        task.log("x", stream="stdlog")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str or bytes"):
        task.log(3)  # type: ignore[arg-type]


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
        (greenlet.GreenletExit(), TaskEvent.CANCELLED, {}),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), TaskEvent.CANCELLED, {}),
        (fanline.TaskCancelled("ann"), TaskEvent.CANCELLED, {"by": "ann"}),
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


def test_calls_that_were_not_taken_before_the_end_are_refused() -> None:
    task, producer = _task()
    replies: list[bytes] = []
    calls = task.calls()
    producer.handle_call("paint", None, "ann", replies.append)
    producer.end(None)
    producer.handle_call("paint", None, "ann", replies.append)
    assert list(calls) == []
    assert [b"has ended" in reply for reply in replies] == [True, True]


def test_nan_and_infinity_in_a_result_become_null() -> None:
    assert bytes(json_of({"loss": math.nan, "best": [math.inf, 1]}, "result")) == b'{"loss":null,"best":[null,1]}'


def test_a_sum_of_percentages_may_be_slightly_over_100() -> None:
    assert progress_data(100.00000000000001, None, None, None, None) == {"percent": 100}


def test_an_integer_over_64_bits_is_reported_as_a_float() -> None:
    assert progress_data(None, None, None, 10**20, None) == {"done": 1e20}


def test_a_title_that_utf8_cannot_encode_is_reported_with_a_replacement() -> None:
    settings = TaskSettings("x", "caf\udce9", None, None, 1.0, None, None, 1.0)
    assert check_settings(settings).title == "caf?"


def test_fields_are_reported_as_their_json_has_them() -> None:
    settings = TaskSettings("x", None, None, None, 1.0, None, None, 1.0, {"role": "buyer", "parties": ("a", "b")})
    assert check_settings(settings).fields == {"role": "buyer", "parties": ["a", "b"]}


@pytest.mark.parametrize(
    ("fields", "error"), [("lease", TypeError), ({"day": object()}, TypeError), ({"text": "x" * 4096}, ValueError)]
)
def test_fields_that_no_viewer_could_get_are_refused(fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="fields"):
        check_settings(TaskSettings("x", None, None, None, 1.0, None, None, 1.0, fields))


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
    with pytest.raises(ValueError, match="an answer"):
        call.answer(2**70)
    call.answer()
    with pytest.raises(RuntimeError, match="already been answered"):
        call.refuse("no")
    assert len(replies) == 1


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


def test_a_forked_copy_of_a_task_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    task, producer = _task()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with _held_by_another_thread(producer):  # of the parent, and for ever
        task.log("x")
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
