"""When the table of running tasks is published, and what is in it."""

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import BusError, Stored, StreamPosition, TooLargeError
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.roster import TaskRoster
from fanline.engine.tasks.table import MAX_ROWS, TablePublisher
from fanline.protocol.envelope import from_producer


class Viewers:
    """Who the table is published to: all tables so far; the next publish raises `error` once."""

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []
        self.error: BusError | None = None
        self.max_rows = MAX_ROWS
        self.roster = TaskRoster(Namespaces())
        self._publisher = TablePublisher(self._publish)

    async def _publish(self, data: dict[str, Any]) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if len(data["tasks"]) > self.max_rows:
            raise TooLargeError("too many rows")
        self.tables.append(data)

    async def turn(self, seconds: float, step: float = 0.2) -> None:
        """Update again and again, as the monitor does."""
        for _ in range(round(seconds / step)):
            await self._publisher.update(self.roster)
            await trio.sleep(step)

    def say(self, channel: str, event: str, time: int = 0, **data: Any) -> None:
        if channel not in self.roster:
            self.roster.add(TaskFold(channel), "e", listed=False)
        payload = msgspec.json.encode({"v": 1, "e": event, "ts": time, "d": data})
        (task,) = self.roster.of([channel])
        stored = Stored(channel, payload, StreamPosition(task.fold.offset + 1, 0, "2026-01-01T00:00:00Z"))
        self.roster.take(stored, lambda stored: from_producer(stored.payload))


@pytest.fixture
def viewers() -> Viewers:
    return Viewers()


async def test_a_row_says_what_is_known_of_a_running_task_and_the_last_changed_one_is_first(
    autojump_clock: MockClock, viewers: Viewers
) -> None:
    viewers.say("task:a", "task_started", 1000, title="A")
    viewers.say("task:b.c:d", "task_progress", 2000, percent=25, stage="s", attempt=2)
    viewers.say("task:ended", "task_completed", 3000)
    await viewers.turn(1)
    (table,) = viewers.tables
    assert table["total"] == 2
    b, a = table["tasks"]
    assert a == {
        "id": "a",
        "ns": "task",
        "state": "running",
        "attempt": 1,
        "title": "A",
        "updated": 1000,
        "started": 1000,
    }
    assert (b["id"], b["attempt"], b["percent"], b["stage"]) == ("b.c:d", 2, 25.0, "s")


async def test_a_change_is_published_at_once_and_the_next_one_a_second_later(
    autojump_clock: MockClock, viewers: Viewers
) -> None:
    await viewers.turn(10)
    assert len(viewers.tables) == 1
    viewers.say("task:a", "task_started")
    await viewers.turn(0.2)
    assert len(viewers.tables) == 2
    for percent in range(20):
        viewers.say("task:a", "task_progress", percent=percent)
        await viewers.turn(0.2)
    assert len(viewers.tables) in (5, 6)


async def test_a_table_that_does_not_change_is_published_again_after_an_hour(
    autojump_clock: MockClock, viewers: Viewers
) -> None:
    await viewers.turn(3590, 10)
    assert len(viewers.tables) == 1
    await viewers.turn(20)
    assert len(viewers.tables) == 2


@pytest.mark.parametrize("rest", [0, 3600])
async def test_a_table_that_could_not_be_published_is_due_again_a_second_later(
    autojump_clock: MockClock, viewers: Viewers, rest: int
) -> None:
    if rest:  # then it is the hourly table that fails
        await viewers.turn(rest, 10)
    before = len(viewers.tables)
    viewers.error = BusError("the bus is away")
    with pytest.raises(BusError):
        await viewers.turn(1)
    await viewers.turn(2)
    assert len(viewers.tables) == before + 1


async def test_a_table_that_is_too_large_has_half_the_rows_and_the_full_total(
    autojump_clock: MockClock, viewers: Viewers
) -> None:
    for number in range(MAX_ROWS + 10):
        viewers.say(f"task:{number}", "task_started", number)
    viewers.max_rows = MAX_ROWS // 2
    await viewers.turn(0.2)
    (table,) = viewers.tables
    assert table["total"] == MAX_ROWS + 10
    assert [int(row["id"]) for row in table["tasks"]] == [MAX_ROWS + 9 - number for number in range(MAX_ROWS // 2)]
