"""A task as text: figures, sentences, and nothing that a terminal would execute."""

import io
from typing import Any

import pytest
from rich.console import Console

from fanline.cli.watch.task_screen import LiveScreen
from fanline.cli.watch.task_text import duration, facts, sentences, status
from fanline.client.message import Message
from fanline.client.task_events import TaskUpdate
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, Snapshot
from fanline.protocol.tasks.states import TaskState


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (750, "12:30"), (3723, "1:02:03"), (90_000, "1 day, 1:00:00")]
)
def test_a_duration_reads_like_a_clock(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_only_known_figures_are_shown_and_the_eta_counts_down() -> None:
    assert facts(Snapshot(), 0) == []
    snapshot = Snapshot(
        percent=40.2, done=1200, total=3000, rate=12.34, eta=150, updated=60_000, started=0, state=TaskState.RUNNING
    )
    assert facts(snapshot, 90_000) == ["40 %", "1,200 of 3,000", "12.3/s", "ETA 2:00", "elapsed 1:30"]
    assert facts(Snapshot(percent=1, rate=2.0), 0) == ["1 %", "2 %/s"]
    assert facts(Snapshot(started=0, ended=5000), 90_000) == ["elapsed 0:05"]


def _sentences(kind: TaskEvent, snapshot: Snapshot, *, before: TaskState = TaskState.RUNNING, **data: Any) -> list[str]:
    update = TaskUpdate(
        kind, snapshot, before, Message("task:1", None), TaskData(**data), new_attempt="attempt" in data
    )
    return list(sentences("task:1", update))


@pytest.mark.parametrize(
    ("kind", "snapshot", "data", "expected"),
    [
        (TaskEvent.STALLED, Snapshot(TaskState.STALLED), {}, ["stalled: its producer has gone silent"]),
        (TaskEvent.ANSWERED, Snapshot(TaskState.RUNNING), {"by": "a", "value": "x"}, ["a sent input: x"]),
        (TaskEvent.ANSWERED, Snapshot(TaskState.RUNNING), {"by": "ann"}, ["ann sent input"]),
        (
            TaskEvent.RETRYING,
            Snapshot(TaskState.RETRYING, 2, error="disk full", ended=1000, retry=9000),
            {},
            ["attempt 2 failed: disk full; trying again in 0:08"],
        ),
        (
            TaskEvent.RETRYING,
            Snapshot(TaskState.RETRYING, 1, ended=1000),
            {},
            ["attempt 1 failed: no reason given; trying again"],
        ),
        (TaskEvent.ASK_EXPIRED, Snapshot(TaskState.RUNNING), {"ask": "a"}, ["the question expired without an answer"]),
        (TaskEvent.DELIVERED, Snapshot(TaskState.RUNNING), {"ask": "a"}, []),
        (
            TaskEvent.DELIVERED,
            Snapshot(TaskState.RUNNING),
            {"ask": "a", "message": "too late"},
            ["the producer refused the answer: too late"],
        ),
        (
            TaskEvent.CANCEL_REFUSED,
            Snapshot(TaskState.RUNNING),
            {"message": "not now"},
            ["the producer refused to stop: not now"],
        ),
        (
            TaskEvent.STARTED,
            Snapshot(TaskState.RUNNING, 2),
            {"attempt": 2},
            ["attempt 2 has started; the output above is superseded"],
        ),
        (
            TaskEvent.OUTPUT,
            Snapshot(TaskState.RUNNING),
            {"dropped": 3},
            ["the producer dropped 3 output lines"],
        ),
        (TaskEvent.PROGRESS, Snapshot(TaskState.RUNNING), {"percent": 3.0}, []),
    ],
)
def test_an_update_is_a_sentence(
    kind: TaskEvent, snapshot: Snapshot, data: dict[str, Any], expected: list[str]
) -> None:
    assert _sentences(kind, snapshot, **data) == expected


def test_a_question_names_the_command_that_answers_it() -> None:
    ask = Ask("a", "which?", options=["blue", "green"])
    shown = _sentences(TaskEvent.ASKED, Snapshot(TaskState.WAITING_INPUT, ask=ask), ask="a")
    assert shown == ["it asks: which? (blue, green)", "answer with `fanline tail task:1 --input TEXT`"]


def test_every_state_has_a_text_of_its_own() -> None:
    assert len({status(Snapshot(state)) for state in TaskState}) == len(TaskState)


def test_a_forced_end_says_who_requested_it_and_why_it_was_forced() -> None:
    shown = status(Snapshot(TaskState.CANCELLED, by="ann", forced=True))
    assert shown == "cancelled by ann (forced: the producer did not stop in time)"


def test_a_screen_prints_what_it_still_holds_at_the_end_of_its_block() -> None:
    file = io.StringIO()
    with LiveScreen(Console(file=file, force_terminal=True, width=60)) as screen:
        screen.tell("something [of note]")
    assert "- something [of note]" in file.getvalue()
