"""The timer event that is due of a task, by made-up times."""

from typing import Any

import pytest

from fanline.engine.tasks.timers import Deadlines, can_be_heard, can_stall, decide, next_deadline, translated
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import TERMINAL, TaskState

NOW = 1_000_000


def deadlines_of(snapshot: Snapshot) -> Deadlines:
    """Those of a producer whose clock is right."""
    ask, stop = snapshot.ask, snapshot.stop
    return Deadlines(snapshot.started, ask.deadline if ask else None, stop.deadline if stop else None)


def due(silence: float = 0.0, heard_again: bool = False, **fields: Any) -> tuple[str, dict[str, Any]] | None:
    snapshot = Snapshot(attempt=1, **fields)
    found = decide(snapshot, deadlines_of(snapshot), silence, heard_again, NOW)
    return None if found is None else (found.event.value, found.data)


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.PAUSED, TaskState.WAITING_INPUT])
def test_a_producer_silent_for_longer_than_it_promised_is_stalled(state: TaskState) -> None:
    assert due(5.01, state=state, heartbeat=5.0) == ("task_stalled", {})
    assert due(5.0, state=state, heartbeat=5.0) is None


def test_a_producer_that_promised_nothing_may_be_silent_for_ever() -> None:
    assert due(1e9, state=TaskState.RUNNING) is None


def test_a_stalled_task_stays_so_until_its_producer_is_heard() -> None:
    stalled: dict[str, Any] = {"state": TaskState.STALLED, "before": TaskState.PAUSED, "heartbeat": 5.0}
    assert due(100.0, **stalled) is None
    assert due(100.0, heard_again=True, **stalled) == ("task_heard", {})


def test_the_end_is_forced_when_the_deadline_to_stop_has_passed() -> None:
    stop = Stop("ann", NOW, accepted=True)
    assert due(state=TaskState.CANCELLING, stop=stop) == ("task_cancelled", {"forced": True, "by": "ann"})
    assert due(state=TaskState.STALLED, stop=Stop(None, NOW)) == ("task_cancelled", {"forced": True})
    assert due(state=TaskState.CANCELLING, stop=Stop("ann", NOW + 1)) is None
    assert due(state=TaskState.CANCELLING, stop=Stop("ann")) is None


def test_an_attempt_that_has_failed_does_not_time_out() -> None:
    late: dict[str, Any] = {"started": 0, "timeout": 5.0}
    assert due(state=TaskState.RUNNING, **late) == ("task_timeout", {"error": "it did not end within 5 seconds"})
    waiting = Snapshot(TaskState.RETRYING, 1, **late)
    assert due(state=TaskState.RETRYING, **late) is None
    assert next_deadline(waiting, deadlines_of(waiting)) == float("inf")
    assert not can_stall(Snapshot(TaskState.RETRYING, 1, heartbeat=5.0))


def test_a_question_expires_only_while_it_is_open() -> None:
    waiting: dict[str, Any] = {"state": TaskState.WAITING_INPUT}
    assert due(ask=Ask("q", deadline=NOW), **waiting) == ("task_confirmation_expired", {"ask": "q"})
    assert due(ask=Ask("q", deadline=NOW + 1), **waiting) is None
    assert due(ask=Ask("q", deadline=NOW, by="ann"), **waiting) is None
    assert due(ask=Ask("q", deadline=NOW, expired=True), **waiting) is None
    # It would be refused in this state, and be due again and again; and it must not hide that the producer is silent.
    assert due(ask=Ask("q", deadline=NOW), state=TaskState.RUNNING) is None
    assert due(9.0, ask=Ask("q", deadline=NOW), state=TaskState.RUNNING, heartbeat=5.0) == ("task_stalled", {})


def test_an_attempt_ends_when_its_time_is_over() -> None:
    found = due(state=TaskState.RUNNING, started=NOW - 60_000, timeout=60.0)
    assert found == ("task_timeout", {"error": "it did not end within 60 seconds"})
    assert due(state=TaskState.RUNNING, started=NOW - 59_999, timeout=60.0) is None
    assert due(state=TaskState.QUEUED, timeout=60.0) is None


def test_a_stalled_task_is_given_up_when_patience_is_over() -> None:
    stalled = Snapshot(state=TaskState.STALLED, before=TaskState.RUNNING, attempt=1, heartbeat=5.0)
    deadlines = Deadlines(stalled=NOW - 60_000)
    found = decide(stalled, deadlines, 65.0, False, NOW, 60.0)
    assert found is not None
    assert (found.event, found.data) == (TaskEvent.TIMED_OUT, {"error": "its producer has been silent for 60 seconds"})
    assert apply(stalled, found.event, TaskData(**found.data), NOW).state is TaskState.TIMED_OUT
    assert next_deadline(stalled, deadlines, 60.0) == NOW
    assert decide(stalled, deadlines, 65.0, False, NOW - 1, 60.0) is None
    assert decide(stalled, deadlines, 65.0, False, NOW) is None  # without a limit
    heard = decide(stalled, deadlines, 0.0, True, NOW, 60.0)
    assert heard == (TaskEvent.HEARD, {})  # it has come back before anybody gave it up


def test_patience_counts_from_the_stall_whatever_happens_meanwhile() -> None:
    running = Snapshot(state=TaskState.RUNNING, attempt=1, heartbeat=5.0)
    stalled = apply(running, TaskEvent.STALLED, TaskData(), 7)
    deadlines = Deadlines().after(running, stalled, 7, 1_000)
    assert deadlines.stalled == 1_000
    asked = apply(stalled, TaskEvent.CANCEL_REQUESTED, TaskData(by="ann"), 8)
    refused = apply(asked, TaskEvent.CANCEL_REFUSED, TaskData(), 9)
    assert deadlines.after(stalled, stalled, 8, 2_000).stalled == 1_000
    assert deadlines.after(stalled, apply(stalled, TaskEvent.HEARD, TaskData(), 9), 9, 3_000).stalled is None
    assert refused.state is TaskState.RUNNING
    assert translated(stalled, 5_000).stalled == 5_000  # late, never early


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_of_an_ended_task_nothing_is_due(state: TaskState) -> None:
    overdue: dict[str, Any] = {"heartbeat": 1.0, "timeout": 1.0, "started": 0, "stop": Stop("ann", 0)}
    assert due(99.0, heard_again=True, state=state, ask=Ask("q", deadline=0), **overdue) is None


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.UNKNOWN])
@pytest.mark.parametrize("heard_again", [False, True])
def test_a_timer_event_changes_the_snapshot_of_its_task(state: TaskState, heard_again: bool) -> None:
    fields: dict[str, Any] = {"heartbeat": 1.0, "ask": Ask("q", deadline=0)}
    for extra in ({}, {"stop": Stop("ann", 0)}, {"timeout": 1.0, "started": 0}):
        snapshot = Snapshot(state=state, attempt=1, **fields, **extra)
        found = decide(snapshot, deadlines_of(snapshot), 99.0, heard_again, NOW)
        if found is not None:
            assert apply(snapshot, TaskEvent(found.event), TaskData(**found.data), NOW) != snapshot


@pytest.mark.parametrize("state", [state for state in TaskState if state not in TERMINAL])
def test_what_is_due_at_the_next_deadline_or_after_silence_was_not_due_before(state: TaskState) -> None:
    overdue: tuple[dict[str, Any], ...] = (
        {"stop": Stop("ann", NOW)},
        {"timeout": 60.0, "started": NOW - 60_000},
        {"ask": Ask("q", deadline=NOW)},
        {},
    )
    for fields in overdue:
        snapshot = Snapshot(state=state, attempt=1, **fields)
        deadlines = deadlines_of(snapshot)
        moment = next_deadline(snapshot, deadlines)
        assert moment in (NOW, float("inf"))
        assert decide(snapshot, deadlines, 0.0, False, NOW - 1) is None
        assert (decide(snapshot, deadlines, 0.0, False, NOW) is not None) is (moment == NOW)
    silent = Snapshot(state=state, attempt=1, heartbeat=1.0)
    assert can_stall(silent) is (decide(silent, Deadlines(), 2.0, False, NOW) is not None)
    assert can_be_heard(silent) is (decide(silent, Deadlines(), 0.0, True, NOW) is not None)
