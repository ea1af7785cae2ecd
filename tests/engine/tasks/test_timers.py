"""What the keeper tells of a task, by made-up times."""

from typing import Any

import pytest

from fanline.engine.tasks.timers import decide
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import TERMINAL, TaskState

NOW = 1_000_000


def told(silent: float = 0.0, back: bool = False, **fields: Any) -> tuple[str, dict[str, Any]] | None:
    verdict = decide(Snapshot(attempt=1, **fields), silent, back, NOW)
    return None if verdict is None else (verdict.event.value, verdict.data)


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.PAUSED, TaskState.WAITING_INPUT])
def test_a_producer_silent_for_longer_than_it_promised_is_stalled(state: TaskState) -> None:
    assert told(5.01, state=state, heartbeat=5.0) == ("task_stalled", {})
    assert told(5.0, state=state, heartbeat=5.0) is None


def test_a_producer_that_promised_nothing_may_be_silent_for_ever() -> None:
    assert told(1e9, state=TaskState.RUNNING) is None


def test_a_stalled_task_stays_so_until_its_producer_is_heard() -> None:
    stalled: dict[str, Any] = {"state": TaskState.STALLED, "before": TaskState.PAUSED, "heartbeat": 5.0}
    assert told(100.0, **stalled) is None
    assert told(100.0, back=True, **stalled) == ("task_heard", {})


def test_the_end_is_forced_when_the_time_to_stop_is_over() -> None:
    stop = Stop("ann", NOW, accepted=True)
    assert told(state=TaskState.CANCELLING, stop=stop) == ("task_cancelled", {"forced": True, "by": "ann"})
    assert told(state=TaskState.STALLED, stop=Stop(None, NOW)) == ("task_cancelled", {"forced": True})
    assert told(state=TaskState.CANCELLING, stop=Stop("ann", NOW + 1)) is None
    assert told(state=TaskState.CANCELLING, stop=Stop("ann")) is None


def test_a_question_expires_only_while_it_is_open() -> None:
    waiting: dict[str, Any] = {"state": TaskState.WAITING_INPUT}
    assert told(ask=Ask("q", deadline=NOW), **waiting) == ("task_confirmation_expired", {"ask": "q"})
    assert told(ask=Ask("q", deadline=NOW + 1), **waiting) is None
    assert told(ask=Ask("q", deadline=NOW, by="ann"), **waiting) is None
    assert told(ask=Ask("q", deadline=NOW, expired=True), **waiting) is None
    # Refused in this state, it would be told again and again; and it must not keep us from telling of the silence.
    assert told(ask=Ask("q", deadline=NOW), state=TaskState.RUNNING) is None
    assert told(9.0, ask=Ask("q", deadline=NOW), state=TaskState.RUNNING, heartbeat=5.0) == ("task_stalled", {})


def test_an_attempt_ends_when_its_time_is_over() -> None:
    verdict = told(state=TaskState.RUNNING, started=NOW - 60_000, timeout=60.0)
    assert verdict == ("task_timeout", {"error": "it did not end within 60 seconds"})
    assert told(state=TaskState.RUNNING, started=NOW - 59_999, timeout=60.0) is None
    assert told(state=TaskState.QUEUED, timeout=60.0) is None


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_of_an_ended_task_nothing_is_told(state: TaskState) -> None:
    overdue: dict[str, Any] = {"heartbeat": 1.0, "timeout": 1.0, "started": 0, "stop": Stop("ann", 0)}
    assert told(99.0, back=True, state=state, ask=Ask("q", deadline=0), **overdue) is None


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.UNKNOWN])
@pytest.mark.parametrize("back", [False, True])
def test_whatever_is_told_fits_the_task(state: TaskState, back: bool) -> None:
    fields: dict[str, Any] = {"heartbeat": 1.0, "ask": Ask("q", deadline=0)}
    for extra in ({}, {"stop": Stop("ann", 0)}, {"timeout": 1.0, "started": 0}):
        snapshot = Snapshot(state=state, attempt=1, **fields, **extra)
        verdict = decide(snapshot, 99.0, back, NOW)
        if verdict is not None:
            assert apply(snapshot, TaskEvent(verdict.event), TaskData(**verdict.data), NOW) != snapshot
