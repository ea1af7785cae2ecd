"""What producers of older systems say is understood where it is plain."""

from typing import Any

import pytest

from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import TaskEvent, event_of
from fanline.protocol.tasks.leniency import understood


def read(event: TaskEvent, data: Any, message_id: str | None = "m-1") -> tuple[Envelope, Any]:
    return understood(Envelope("pub", "task:1", event=event, data=data, id=message_id), event)


@pytest.mark.parametrize(
    ("event", "said", "key", "meant"),
    [
        (TaskEvent.PROGRESS, {"progress": 40, "stage": "a"}, "percent", 40),  # S2-70, S5-19
        (TaskEvent.OUTPUT, "a line", "lines", ["a line"]),  # S2-71
        (TaskEvent.OUTPUT, {"lines": "a line"}, "lines", ["a line"]),
        (TaskEvent.ASKED, {"message": "Deploy?"}, "text", "Deploy?"),  # S2-72
        (TaskEvent.ASKED, {"text": "Deploy?"}, "ask", "m-1"),
        (TaskEvent.FAILED, {"error": {"code": 3, "message": "no"}}, "error", "no"),  # S2-77
        (TaskEvent.FAILED, {"error": {"code": 3}}, "error", '{"code":3}'),
        (TaskEvent.TIMED_OUT, {"error": [1]}, "error", "[1]"),
        (TaskEvent.TIMED_OUT, {"timeout": 0}, "timeout", None),  # S2-79
        (TaskEvent.TIMED_OUT, {"timeout": "30s", "error": "late"}, "timeout", None),
    ],
)
def test_what_is_plain_is_repaired_for_the_fold_and_for_viewers(
    event: TaskEvent, said: Any, key: str, meant: Any
) -> None:
    envelope, data = read(event, said)
    assert getattr(data, key) == meant
    assert envelope.value[key] == meant


def test_json_data_is_repaired_too() -> None:
    envelope = from_producer(b'{"v":1,"e":"task_output","d":"a line"}')
    repaired, data = understood(envelope, TaskEvent.OUTPUT)
    assert (repaired.value, data.lines) == ({"lines": ["a line"]}, ["a line"])


def test_what_json_cannot_hold_is_read_as_viewers_with_json_read_it() -> None:
    envelope, data = read(TaskEvent.OUTPUT, {"lines": [b"a"]})
    assert (envelope.value, data.lines) == ({"lines": ["YQ=="]}, ["YQ=="])
    envelope, data = read(TaskEvent.PROGRESS, {"percent": float("nan"), "stage": "a"})
    assert (envelope.value, data.percent, data.stage) == ({"percent": None, "stage": "a"}, None, "a")


def test_a_question_without_a_name_has_the_same_one_in_every_worker() -> None:
    names = {read(TaskEvent.ASKED, {"message": "Deploy?"}, None)[1].ask for _ in range(2)}
    assert len(names) == 1
    assert names != {read(TaskEvent.ASKED, {"message": "Really?"}, None)[1].ask}


def test_progress_that_says_something_else_is_left_alone() -> None:
    said = {"progress": {"of": "mine"}, "stage": "a"}
    envelope, data = read(TaskEvent.PROGRESS, said)
    assert (envelope.data, data.percent, data.stage) == (said, None, "a")
    assert read(TaskEvent.PROGRESS, {"progress": 5, "percent": 7})[1].percent == 7


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (TaskEvent.PROGRESS, {"percent": "much"}),
        (TaskEvent.OUTPUT, {"lines": [1]}),
        (TaskEvent.STARTED, {"attempt": 0}),
        (TaskEvent.ASKED, 7),
        (TaskEvent.ASKED, {"text": 7}),
    ],
)
def test_what_is_not_plain_is_refused(event: TaskEvent, said: Any) -> None:
    with pytest.raises(MessageError):
        read(event, said)


def test_the_old_name_of_progress_is_understood() -> None:  # S2-70
    assert event_of(Envelope("pub", event="task_progress_update")) is TaskEvent.PROGRESS
