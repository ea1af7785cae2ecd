"""All tasks of a monitor together."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import Stored, StreamPosition
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitored import LINGER_SECONDS
from fanline.engine.tasks.roster import GRACE_SECONDS, TaskRoster
from fanline.protocol.envelope import Envelope, from_producer


@pytest.fixture
def roster() -> TaskRoster:
    return TaskRoster(Namespaces())


def take(roster: TaskRoster, channel: str, event: str, offset: int, **data: object) -> None:
    payload = msgspec.json.encode({"v": 1, "e": event, "d": data})
    roster.take(Stored(channel, payload, StreamPosition(offset, 0, "2026-01-01T00:00:00Z")), read)


def read(stored: Stored) -> Envelope:
    return from_producer(stored.payload)


async def test_only_messages_of_monitored_tasks_are_folded_and_count_as_changes(
    autojump_clock: MockClock, roster: TaskRoster
) -> None:
    roster.add(TaskFold("task:a"), "e", listed=False)
    changes = roster.changes
    take(roster, "task:b", "task_started", 1)
    assert (roster.changes, "task:b" in roster) == (changes, False)
    take(roster, "task:a", "task_started", 2)
    assert roster.changes > changes
    assert [task.running for task in roster.of(["task:a", "task:b"])] == [True]


async def test_an_ended_task_that_is_recorded_is_forgotten_and_the_others_stay(
    autojump_clock: MockClock, roster: TaskRoster
) -> None:
    for offset, (channel, event) in enumerate((("task:a", "task_completed"), ("task:b", "task_started")), 1):
        roster.add(TaskFold(channel), "e", listed=False)
        take(roster, channel, event, offset)
    for task in roster:
        task.recorded(trio.current_time())
    changes = roster.changes
    await trio.sleep(LINGER_SECONDS + 1)
    await roster.forget_finished()
    assert [task.fold.channel for task in roster] == ["task:b"]
    assert roster.changes == changes  # the table does not show ended tasks


async def test_grace_is_for_tasks_of_now_and_for_those_that_are_added_during_it(
    autojump_clock: MockClock, roster: TaskRoster
) -> None:
    begin = trio.current_time()
    roster.add(TaskFold("task:a"), "e", listed=False)
    take(roster, "task:a", "task_started", 1, heartbeat=5)
    roster.grant_grace()
    await trio.sleep(GRACE_SECONDS / 2)
    fold = TaskFold("task:b")
    fold.take(from_producer(b'{"v":1,"e":"task_started","d":{"heartbeat":5}}'), 1)
    roster.add(fold, "e", listed=True)
    for task in roster:
        assert task.timer_event(begin + GRACE_SECONDS + 5, 0) is None
        assert task.timer_event(begin + GRACE_SECONDS + 5.1, 0) is not None


async def test_a_cleared_roster_is_empty_and_its_table_is_due_again(
    autojump_clock: MockClock, roster: TaskRoster
) -> None:
    roster.add(TaskFold("task:a"), "e", listed=False)
    changes = roster.changes
    roster.clear()
    assert (len(roster), roster.changes > changes) == (0, True)


async def test_a_recreated_stream_restarts_the_tasks_of_its_namespace_alone(
    autojump_clock: MockClock, roster: TaskRoster
) -> None:
    for channel in ("task:a", "tasks:b"):
        roster.add(TaskFold(channel), "e", listed=False)
    roster.restart("task", "other")
    assert [task.epoch for task in roster] == ["other", "e"]
