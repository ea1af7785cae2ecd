"""What is due of one monitored task, by made-up times."""

import math
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from fanline.engine.bus.stored import Epoch
from fanline.engine.tasks.fold import TaskFold, read_record
from fanline.engine.tasks.monitor.monitored_task import (
    COOL_SECONDS,
    LINGER_SECONDS,
    RECORD_MESSAGES,
    RECORD_SECONDS,
    REFRESH_SECONDS,
    STRANGER_SECONDS,
    new_task,
)
from fanline.engine.tasks.timers import Deadlines
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState

RETENTION = 7 * 86_400.0
HOUR_MS = 3_600_000


class OneTask:
    """A monitored task that takes one event after the other. The store's clock shows seconds since 0."""

    def __init__(self, now: float = 0.0, *events: str, **data: Any) -> None:
        self.task = new_task("task:a", Epoch("e"), now)
        self.task.warm_without_record()
        for name in events:
            self.take(name, now, **data)
        if events:
            self.record(now)

    def take(self, name: str | None, now: float, offset: int = 0, producer_ms: int = 0, **data: Any) -> None:
        envelope = None if name is None else message(name, producer_ms, **data)
        with suppress(MessageError):
            self.task.take(envelope, offset or self.task.folded + 1, round(now * 1000), now)

    def due(self, sound: float, grace: float = -math.inf) -> tuple[str, dict[str, Any]] | None:
        return self.task.timer_event(sound, grace, sound * 1000)

    def record(self, now: float) -> None:
        """Store what is due."""
        assert self.task.is_record_due(now)
        snapshot = self.task.snapshot
        self.task.recorded(self.task.folded, (snapshot.state, snapshot.attempt), now)
        self.list(listed=self.task.running)

    def list(self, *, listed: bool) -> None:
        self.task.entry_written(self.task.offset, listed=listed)


def message(name: str, producer_ms: int = 0, **data: Any) -> Envelope:
    return Envelope("pub", "task:a", event=name, data=Raw(msgspec.json.encode(data)), time=producer_ms)


@pytest.fixture
def running() -> OneTask:
    """A task that has started at 0, and is recorded and listed."""
    one = OneTask()
    one.take("task_started", 0.0)
    one.record(0.0)
    return one


# --- the record ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "data"),
    [("task_paused", {}), ("task_completed", {}), ("task_started", {"attempt": 2})],
)
def test_a_record_is_due_at_once_after_a_change_of_state_or_attempt(
    running: OneTask, event: str, data: dict[str, Any]
) -> None:
    assert not running.task.is_record_due(5.0)
    running.take(event, 5.0, **data)
    assert running.task.is_record_due(5.0)


def test_a_record_is_due_some_time_after_the_first_message_that_it_lacks(running: OneTask) -> None:
    for now in (5.0, 8.0, 14.9):
        running.take("task_progress", now, percent=1)
        assert not running.task.is_record_due(now)
    assert running.task.is_record_due(5.0 + RECORD_SECONDS)
    running.record(5.0 + RECORD_SECONDS)
    assert not running.task.is_record_due(5.0 + 2 * RECORD_SECONDS)


def test_a_record_is_due_before_that_when_it_lacks_many_messages(running: OneTask) -> None:
    for _ in range(RECORD_MESSAGES - 1):
        running.take("task_progress", 5.0, percent=1)
    assert not running.task.is_record_due(5.0)
    running.take("task_progress", 5.0, percent=1)
    assert running.task.is_record_due(5.0)


def test_nothing_is_due_of_a_channel_on_which_no_task_was_reported() -> None:
    one = OneTask()
    one.take("of_its_own", 5.0)
    assert not one.task.is_record_due(1e6)
    assert not one.task.entry_due


def record_of(*events: str, **data: Any) -> bytes:
    fold = TaskFold("task:a")
    for offset, name in enumerate(events, 1):
        fold.take(message(name, **data), offset)
    return fold.record(Epoch("e"))


def test_a_restored_task_is_recorded_again_when_something_has_changed_and_after_a_while() -> None:
    record = read_record("task:a", record_of("task_started", "task_output", lines=["x"]), Epoch("e"))
    assert record is not None
    one = OneTask()
    one.task = new_task("task:a", Epoch("e"), 100.0)
    one.task.warm(record, 50_000)
    assert (one.task.folded, one.task.output_recorded, one.task.output, one.task.snapshot.lines) == (2, True, None, 1)
    assert not one.task.is_record_due(100.0 + RECORD_SECONDS)
    one.take("task_progress", 100.0, percent=1)
    assert not one.task.is_record_due(100.0)
    assert one.task.is_record_due(100.0 + RECORD_SECONDS)


def test_an_unchanged_running_task_is_recorded_again_before_its_record_expires_if_it_was_heard(
    running: OneTask,
) -> None:
    assert not running.task.is_record_due(REFRESH_SECONDS)
    running.task.beat(5.0)
    assert not running.task.is_record_due(REFRESH_SECONDS - 1)
    assert running.task.is_record_due(REFRESH_SECONDS)
    running.record(REFRESH_SECONDS)
    assert not running.task.is_record_due(2 * REFRESH_SECONDS)


# --- the entry, and the end ---------------------------------------------------------------------------------------


def test_an_entry_is_due_when_what_timers_need_changes_and_only_then() -> None:
    one = OneTask()
    steps: list[tuple[str, dict[str, Any], bool]] = [
        ("task_started", {"heartbeat": 5}, True),
        ("task_progress", {"percent": 1}, False),
        ("task_output", {"lines": ["x"]}, False),
        ("of_its_own", {}, False),
        ("task_confirmation_required", {"ask": "q", "deadline": 9}, True),
        ("task_input", {"ask": "other"}, False),
        ("task_input", {"ask": "q", "by": "ann"}, True),
        ("task_started", {"timeout": 60}, True),
        ("task_stalled", {}, True),
        ("task_progress", {"percent": 2}, True),
        ("task_cancel_requested", {"deadline": 5}, True),
        ("task_started", {"attempt": 2}, True),
        ("task_completed", {}, True),
    ]
    for name, data, due in steps:
        one.take(name, 0.0, **data)
        assert (one.task.entry_due > 0) is due, name
        one.list(listed=one.task.running)


def test_an_entry_stays_due_from_the_oldest_change_that_it_does_not_show() -> None:
    one = OneTask()
    one.take("task_started", 0.0)
    one.take("task_paused", 0.0)
    assert one.task.entry_due == 1
    one.take("task_resumed", 0.0)
    one.task.entry_written(0, listed=True)
    assert one.task.entry_due == 1


def test_an_ended_task_is_over_when_it_is_recorded_and_has_lingered(running: OneTask) -> None:
    running.take("task_completed", 20.0)
    late = 20.0 + LINGER_SECONDS + 1
    assert not running.task.is_over(late, RETENTION)
    running.record(20.0)
    assert not running.task.is_over(20.0 + LINGER_SECONDS, RETENTION)
    assert running.task.is_over(late, RETENTION)


def test_a_running_task_is_over_when_there_was_no_sign_of_it_for_its_retention(running: OneTask) -> None:
    assert not running.task.is_over(RETENTION, RETENTION)
    assert running.task.is_over(RETENTION + 1, RETENTION)
    running.task.beat(10.0)
    assert not running.task.is_over(RETENTION + 1, RETENTION)
    # Its record is refreshed in the meantime, however short the retention is.
    assert not running.task.is_over(10.0 + 2 * REFRESH_SECONDS, 1.0)
    assert running.task.is_over(11.0 + 2 * REFRESH_SECONDS, 1.0)


def test_a_task_is_cold_when_it_is_recorded_and_nothing_was_said_for_a_while(running: OneTask) -> None:
    assert not running.task.is_cool(COOL_SECONDS - 1)
    assert running.task.is_cool(COOL_SECONDS)
    running.take("task_progress", 10.0, percent=1)
    assert not running.task.is_cool(COOL_SECONDS + 10)
    running.record(10.0 + RECORD_SECONDS)
    assert running.task.is_cool(COOL_SECONDS + 10)


# --- strangers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["task_progress", "task_output", "task_paused"])
def test_a_task_that_no_event_has_announced_is_forgotten_soon_and_leaves_nothing(event: str) -> None:
    one = OneTask()
    one.take(event, 0.0)
    assert (one.task.running, one.task.is_stranger, one.task.entry_due) == (True, True, 0)
    assert not one.task.is_record_due(RECORD_SECONDS + 1)
    assert not one.task.is_over(STRANGER_SECONDS, RETENTION)
    assert one.task.is_over(STRANGER_SECONDS + 1, RETENTION)


def test_a_task_that_goes_on_without_being_announced_is_recorded_and_one_that_ends() -> None:
    one = OneTask()
    one.take("task_progress", 0.0, percent=1)
    one.take("task_progress", 9.0, percent=2)
    assert not one.task.is_record_due(9.0)
    one.record(RECORD_SECONDS)
    assert not one.task.is_stranger
    brief = OneTask()
    brief.take("task_completed", 0.0)
    assert brief.task.is_record_due(0.0)


@pytest.mark.parametrize("event", ["task_created", "task_started"])
def test_a_task_is_announced_by_its_creation_or_its_start(event: str) -> None:
    one = OneTask()
    one.take("task_progress", 0.0, percent=1)
    one.take(event, 1.0, attempt=2)
    assert (one.task.is_stranger, one.task.entry_due, one.task.is_record_due(1.0)) == (False, 2, True)


# --- timer events -------------------------------------------------------------------------------------------------


def test_until_its_timer_event_has_come_back_from_the_stream_no_other_is_due() -> None:
    one = OneTask(0.0, "task_started", heartbeat=1.0)
    assert one.due(5.0) == (TaskEvent.STALLED, {})
    one.task.awaited = 3
    assert one.due(6.0) is None
    one.take(None, -1.0, 2)  # another publisher's message came before
    assert one.due(6.0) is None
    one.take(None, -1.0, 3)
    assert one.due(6.0) is not None


def test_silence_counts_up_to_the_moment_to_which_everything_was_heard() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0)
    one.take("task_progress", 10.0, percent=1)
    assert one.task.next_silence(-math.inf) == 15.0
    assert one.due(15.0) is None
    assert one.due(15.1) == (TaskEvent.STALLED, {})


def test_grace_puts_silence_off() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0)
    assert one.due(8.0, grace=3.0) is None
    assert one.task.next_silence(3.0) == 8.0
    assert one.due(8.1, grace=3.0) == (TaskEvent.STALLED, {})


def test_a_stalled_task_is_heard_again_by_a_beat_after_the_stall_and_by_none_before_it() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0)
    one.task.beat(1.0)
    assert one.due(7.0) == (TaskEvent.STALLED, {})
    one.take("task_stalled", 7.1)
    assert one.due(8.0) is None
    assert one.task.next_silence(-math.inf) == math.inf
    one.task.beat(9.0)
    assert one.task.next_silence(-math.inf) == -math.inf
    assert one.due(9.0) == (TaskEvent.HEARD, {})


@pytest.mark.parametrize(
    ("event", "attempt", "heard"), [("task_progress", 2, True), ("task_progress", 1, False), ("task_input", 2, False)]
)
def test_only_a_message_of_the_producer_that_fits_is_a_sign_of_life(event: str, attempt: int, heard: bool) -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0, attempt=2)
    one.take(event, 10.0, attempt=attempt)
    assert (one.due(12.0) is None) is heard


@pytest.mark.parametrize("wrong", [-2 * HOUR_MS, 2 * HOUR_MS])
def test_deadlines_count_from_when_the_store_got_the_event_whatever_the_producers_clock_says(wrong: int) -> None:
    one = OneTask()
    one.take("task_started", 10.0, producer_ms=wrong, timeout=60)
    assert one.task.deadlines == Deadlines(10_000, None, None)
    one.take("task_confirmation_required", 20.0, producer_ms=wrong + 3, ask="q", deadline=5)
    one.take("task_cancel_requested", 30.0, deadline=7)  # the engine's clock is right
    assert one.task.deadlines == Deadlines(10_000, 25_000, 37_000)
    assert one.task.next_deadline_ms() == 25_000
    one.take("task_input", 31.0, ask="q", by="ann")
    assert one.task.deadlines == Deadlines(10_000, None, 37_000)
    one.take("task_started", 40.0, producer_ms=wrong, attempt=2)
    assert one.task.deadlines == Deadlines(40_000, None, None)


def test_of_a_record_without_an_entry_deadlines_are_late_rather_than_early() -> None:
    fold = TaskFold("task:a")
    fold.take(message("task_started", HOUR_MS, timeout=60), 1)
    fold.take(message("task_progress", HOUR_MS + 20_000, percent=1), 2)
    record = read_record("task:a", fold.record(Epoch("e")), Epoch("e"))
    assert record is not None
    task = new_task("task:a", Epoch("e"), 0.0)
    task.warm(record, 100_000)
    assert task.deadlines == Deadlines(80_000, None, None)
    assert (task.entry_due, task.announced) == (2, True)


def test_an_entry_that_is_newer_than_the_record_keeps_its_deadlines() -> None:
    record = read_record("task:a", record_of("task_started", timeout=60), Epoch("e"))
    assert record is not None
    task = new_task("task:a", Epoch("e"), 0.0)
    task.begin_cold(record.snapshot, 7, Deadlines(5_000, None, None))
    task.warm(record, 100_000)
    assert (task.deadlines, task.folded, task.offset) == (Deadlines(5_000, None, None), 1, 7)


def test_after_its_stream_was_recreated_messages_are_taken_from_the_first_offset() -> None:
    one = OneTask(0.0, "task_started", heartbeat=1.0)
    one.take("task_progress", 0.0, percent=1)
    one.task.awaited = 9
    one.task.restart(Epoch("other"))
    assert one.due(5.0) is not None
    one.take("task_completed", 5.0, 1)
    assert (one.task.running, one.task.snapshot.state, one.task.epoch) == (False, TaskState.COMPLETED, Epoch("other"))
