"""What is due of one monitored task, by made-up times."""

import math
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitored import (
    LINGER_SECONDS,
    RECORD_MESSAGES,
    RECORD_SECONDS,
    REFRESH_SECONDS,
    MonitoredTask,
)
from fanline.protocol.envelope import Envelope
from fanline.protocol.tasks.events import TaskEvent

RETENTION = 7 * 86_400.0


class OneTask:
    """A monitored task that takes one event after the other."""

    def __init__(self, now: float = 0.0, *events: str, heard: float = -math.inf, **data: Any) -> None:
        fold = TaskFold("task:a")
        for offset, name in enumerate(events, 1):
            fold.take(message(name, **data), offset)
        self.task = MonitoredTask(fold, "e", now, max(now, heard), listed=bool(events))

    def take(self, name: str, now: float, **data: Any) -> None:
        self.task.take(message(name, **data), self.task.fold.offset + 1, now)

    def listing_due(self, now: float) -> bool:
        return self.task.is_listing_due(self.task.is_record_due(now))

    def record(self, now: float) -> None:
        """Store what is due."""
        assert self.task.is_record_due(now)
        self.task.recorded(now)
        self.task.listed = self.task.running


def message(name: str, **data: Any) -> Envelope:
    return Envelope("pub", "task:a", event=name, data=Raw(msgspec.json.encode(data)), time=0)


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
    assert not one.listing_due(1e6)


def test_a_restored_task_is_recorded_again_after_a_while() -> None:
    one = OneTask(100.0, "task_started")
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


# --- the list of running tasks, and the end -----------------------------------------------------------------------


def test_a_task_is_listed_from_its_start_to_its_end_and_again_with_each_record() -> None:
    one = OneTask()
    one.take("task_started", 0.0)
    assert one.listing_due(0.0)
    one.record(0.0)
    assert not one.listing_due(0.0)
    one.take("task_progress", 1.0, percent=1)
    assert not one.listing_due(1.0)
    assert one.listing_due(1.0 + RECORD_SECONDS)
    one.record(1.0 + RECORD_SECONDS)
    one.take("task_completed", 20.0)
    assert one.listing_due(20.0)
    one.record(20.0)
    assert not one.listing_due(20.0)


def test_an_ended_task_is_over_when_it_is_recorded_and_unlisted_and_has_lingered(running: OneTask) -> None:
    running.take("task_completed", 20.0)
    late = 20.0 + LINGER_SECONDS + 1
    assert not running.task.is_over(late, RETENTION)
    running.task.listed = False
    assert not running.task.is_over(late, RETENTION)
    running.task.recorded(20.0)
    running.task.listed = True
    assert not running.task.is_over(late, RETENTION)
    running.task.listed = False
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


# --- timer events -------------------------------------------------------------------------------------------------


def test_until_its_timer_event_has_come_back_from_the_stream_no_other_is_due() -> None:
    one = OneTask(0.0, "task_started", heartbeat=1.0)
    assert one.task.timer_event(5.0, 0) == (TaskEvent.STALLED, {})
    one.task.awaited = 3
    assert one.task.timer_event(6.0, 0) is None
    one.task.take(None, 2, -1.0)  # another publisher's message came before
    assert one.task.timer_event(6.0, 0) is None
    one.task.take(None, 3, -1.0)
    assert one.task.timer_event(6.0, 0) is not None


def test_silence_counts_up_to_the_moment_to_which_all_messages_were_taken() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0)
    one.take("task_progress", 10.0, percent=1)
    assert one.task.timer_event(15.0, 0) is None
    assert one.task.timer_event(15.1, 0) == (TaskEvent.STALLED, {})


def test_grace_puts_silence_off() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0, heard=3.0)
    one.task.grant_grace(2.0)
    assert one.task.timer_event(8.0, 0) is None
    assert one.task.timer_event(8.1, 0) == (TaskEvent.STALLED, {})


def test_a_stalled_task_is_heard_again_by_a_beat_after_the_stall_and_by_none_before_it() -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0)
    one.task.beat(1.0)
    assert one.task.timer_event(7.0, 0) == (TaskEvent.STALLED, {})
    one.take("task_stalled", 7.1)
    assert one.task.timer_event(8.0, 0) is None
    one.task.beat(9.0)
    assert one.task.timer_event(9.0, 0) == (TaskEvent.HEARD, {})


@pytest.mark.parametrize(
    ("event", "attempt", "heard"), [("task_progress", 2, True), ("task_progress", 1, False), ("task_input", 2, False)]
)
def test_only_a_message_of_the_producer_that_fits_is_a_sign_of_life(event: str, attempt: int, heard: bool) -> None:
    one = OneTask(0.0, "task_started", heartbeat=5.0, attempt=2)
    one.take(event, 10.0, attempt=attempt)
    assert (one.task.timer_event(12.0, 0) is None) is heard


def test_after_its_stream_was_recreated_messages_are_taken_from_the_first_offset() -> None:
    one = OneTask(0.0, "task_started", "task_progress", heartbeat=1.0)
    one.task.awaited = 9
    one.task.restart("other")
    assert one.task.timer_event(5.0, 0) is not None
    one.task.take(message("task_completed"), 1, 5.0)
    assert not one.task.running
    assert msgspec.json.decode(one.task.fold.record(one.task.epoch))["epoch"] == "other"
