"""The job never dies of what it reports: every kind of object, at every method of a task, under both of its shells."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanline
from fanline.producer.checks import MAX_JSON_BYTES, TaskSettings, check_settings
from fanline.producer.run.producer import Producer
from fanline.producer.sharing.wire import cancel_line, read_cancel, read_report, report_line
from fanline.producer.values.json_value import json_value
from fanline.protocol.tasks.events import TaskData
from fanline.protocol.values import check_value
from tests.fanline.producer.hostile_objects import MAKERS

LATER = 1e12


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.decimals(), st.dates()
)
_keys = st.one_of(st.text(), st.integers())
# What makes an object: Hypothesis looks into the values that it draws, which some of these do not survive.
_anything = st.one_of(
    st.sampled_from(list(MAKERS.values())),
    st.recursive(
        _leaves, lambda inner: st.one_of(st.lists(inner), st.dictionaries(_keys, inner), st.sets(st.text()))
    ).map(_always),
)
_methods = st.sampled_from(
    [
        lambda task, a, b: task.progress(a, b),
        lambda task, a, b: task.progress(done=a, total=b, stage=a),
        lambda task, a, b: task.log(a),
        lambda task, a, b: task.log(a, stream=b),
        lambda task, a, b: task.pause(a),
        lambda task, a, b: task.resume(),
        lambda task, a, b: task.result(a),
        lambda task, a, b: list(task.track([1, 2], total=a, stage=b, message=a)),
    ]
)


def _producer() -> Producer:
    return Producer(check_settings(TaskSettings("job", None, None, 1, 10.0, None, None, 5.0)))


def _check_sendable(producer: Producer) -> None:
    """Whatever the exporter takes can be encoded, and is what the server knows."""
    for message in producer.take(LATER, 10_000):
        data = msgspec.json.decode(msgspec.json.encode(message.data))
        check_value(data)
        msgspec.convert(data, TaskData)


@pytest.mark.parametrize("shell", [fanline.SyncTask, fanline.AsyncTask])
@given(st.lists(st.tuples(_methods, _anything, _anything), max_size=4))
def test_no_method_of_a_task_raises_whatever_it_is_given(
    shell: type[Any], calls: list[tuple[Callable[..., Any], Any, Any]]
) -> None:
    producer = _producer()
    task = shell(producer)
    for method, first, second in calls:
        method(task, first(), second())
    producer.end(None)
    _check_sendable(producer)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_hostile_object_at_each_method_arrives_as_something_that_can_be_sent(make: Callable[[], Any]) -> None:
    producer = _producer()
    task = fanline.SyncTask(producer)
    task.progress(make(), make(), stage=make(), done=make(), total=make())
    task.log(make(), stream=make())
    task.pause(make())
    task.result(make())
    producer.end(None)
    _check_sendable(producer)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_question_of_any_kind_of_object_is_asked(make: Callable[[], Any]) -> None:
    producer = _producer()
    producer.end_ask(producer.ask(make(), "approve", make(), None))
    _check_sendable(producer)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_block_ends_with_any_error(make: Callable[[], Any]) -> None:
    for error in (ValueError(make()), SystemExit(make()), fanline.TaskCancelled(make()), fanline.FanlineError(make())):
        producer = _producer()
        producer.end(error)
        _check_sendable(producer)
        assert producer.ended is not None


@given(_anything, st.integers(100, 20_000))
def test_no_json_value_is_larger_than_its_limit(make: Callable[[], Any], most: int) -> None:
    raw, loss = json_value(make(), most)
    assert len(raw) <= most
    check_value(msgspec.json.decode(raw))
    assert loss is None or loss


@given(_anything, _anything)
def test_what_a_handle_reports_is_one_line_that_is_understood(
    first: Callable[[], Any], second: Callable[[], Any]
) -> None:
    line, _ = report_line("progress", (first(), second()))
    assert line.count(b"\n") == 1
    report = read_report(line[:-1])
    assert report is not None
    assert report[0] == "progress"


def test_a_cancel_is_read_whatever_stands_in_the_line() -> None:
    assert read_cancel(cancel_line("ann")[:-1]) == "ann"
    assert [read_cancel(line) for line in (cancel_line(None), b"", b"[]", b"\xff", b'{"by":5}')] == [None] * 5


def test_a_line_that_no_handle_writes_is_no_report() -> None:
    lines = (b"", b"[]", b"{}", b"\xff", b'["end"]', b'[["log"]]', b"[" * 100_000)
    assert [read_report(line) for line in lines] == [None] * len(lines)


def test_an_answer_to_a_call_may_be_any_object() -> None:
    for make in MAKERS.values():
        producer, replies = _producer(), list[bytes]()
        calls = fanline.SyncTask(producer).calls()
        producer.handle_call("paint", None, "ann", replies.append)
        producer.handle_call("paint", None, "ann", replies.append)
        next(calls).answer(make())
        next(calls).refuse(make())
        assert [len(reply) <= MAX_JSON_BYTES + 100 for reply in replies] == [True, True]
