"""When the table of running tasks is published, and what is in it."""

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError, TooLargeError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Epoch
from fanline.engine.cluster.shares import SHARES, share_of
from fanline.engine.cluster.store_clock import StoreClock
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.monitor.lease import Lease
from fanline.engine.tasks.monitor.monitored_task import new_task
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.monitor.stored.table import MAX_ROWS, TablePublisher
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.names import Bucket


class Viewers:
    """Who the table is published to: all tables so far; the next publish raises `error` once. One worker's part: it
    holds the shares `held` of a cluster with the live workers `live`.
    """

    def __init__(
        self, broker: MemoryBroker | None = None, me: str = "me", held: range = range(SHARES), *live: str
    ) -> None:
        self.tables: list[dict[str, Any]] = []
        self.error: BusError | None = None
        self.max_rows = MAX_ROWS
        self.live = {me, *live}
        self.bus = MemoryBus(broker or MemoryBroker())
        self.roster = TaskRoster(
            Namespaces(), lambda _: None, lambda *_: None, StoreClock(), Counters(), Faults(Counters())
        )
        for number in held:
            self.roster.shares[number] = Share(number, Lease(self.bus, "", ""))
        self.publisher = TablePublisher(self.bus, me, lambda: self.live, self._publish)

    async def _publish(self, data: dict[str, Any]) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if len(data["tasks"]) > self.max_rows:
            raise TooLargeError("too many rows")
        self.tables.append(msgspec.to_builtins(data))

    async def turn(self, seconds: float, step: float = 0.2) -> None:
        """Update again and again, as the monitor does."""
        for _ in range(round(seconds / step)):
            await self.publisher.update(self.roster)
            await trio.sleep(step)

    def say(self, channel: str, event: str, time: int = 0, **data: Any) -> None:
        share = self.roster.shares[share_of(channel)]
        assert share is not None
        task = share.find(channel)
        if task is None:
            task = new_task(channel, Epoch("e"), trio.current_time())
            task.warm_without_record()
            self.roster.add(share, task)
        envelope = Envelope("pub", channel, event=event, data=data, time=time)
        task.take(envelope, task.folded + 1, time, trio.current_time())
        share.put(task)
        self.roster.changes += 1


def channels(held: range) -> list[str]:
    """Some tasks of some shares."""
    return [name for name in (f"task:{number}" for number in range(200)) if share_of(name) in held]


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


async def test_the_rows_of_all_workers_are_in_the_table_of_the_one_that_holds_share_0(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    one = Viewers(broker, "one", range(8), "two", "three")
    two = Viewers(broker, "two", range(8, 12), "one", "three")
    three = Viewers(broker, "three", range(12, 16), "one", "two")
    (a, b, *_), (c, *_), (d, *_) = channels(range(8)), channels(range(8, 12)), channels(range(12, 16))
    for time, (worker, channel) in enumerate(((one, a), (two, c), (one, b), (three, d)), 1):
        worker.say(channel, "task_started", time)
    for worker in (two, three, one):
        await worker.turn(1.2)
    assert (two.tables, three.tables) == ([], [])
    assert [f"{row['ns']}:{row['id']}" for row in one.tables[-1]["tasks"]] == [d, b, c, a]
    assert one.tables[-1]["total"] == 4
    published = len(one.tables)
    await one.turn(5)
    assert len(one.tables) == published
    two.say(c, "task_completed", 5)
    await two.turn(1)
    await one.turn(2)
    assert (one.tables[-1]["total"], len(one.tables)) == (3, published + 1)
    one.live = {"one", "two"}  # the third is dead
    await one.turn(2)
    assert [f"{row['ns']}:{row['id']}" for row in one.tables[-1]["tasks"]] == [b, a]


async def test_a_worker_that_loses_share_0_leaves_its_rows_to_the_next_publisher(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    one, two = Viewers(broker, "one", range(16)), Viewers(broker, "two", range(0), "one")
    (a, *_) = channels(range(1, 16))
    one.say(a, "task_started", 1)
    await one.turn(2)
    one.live, one.roster.shares[0] = {"one", "two"}, None
    two.roster.shares[0] = Share(0, Lease(two.bus, "", ""))
    await one.turn(2)
    await two.turn(2)
    assert [row["id"] for row in two.tables[-1]["tasks"]] == [a.partition(":")[2]]


async def test_rows_that_cannot_be_read_are_left_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    one = Viewers(broker, "one", range(16), "odd")
    await MemoryBus(broker).kv_put(Bucket.RUNNING, "rows.odd", b"[", 60)
    await one.turn(3)
    assert one.tables == [{"tasks": [], "total": 0}]
    assert "the rows of another worker cannot be read" in caplog.text


async def test_rows_are_found_again_after_an_outage_in_which_the_store_lost_them_and_began_to_count_again(
    autojump_clock: MockClock,
) -> None:
    broker, mine, theirs = MemoryBroker(), range(8), range(8, SHARES)
    me, other = Viewers(broker, "me", mine, "other"), Viewers(broker, "other", theirs, "me")
    names = channels(theirs)
    for channel in names[:5]:
        other.say(channel, "task_started")
        await other.turn(1.2)
    await me.turn(1.2)
    assert me.tables[-1]["total"] == 5
    broker.lose_buckets()
    me.publisher.bus_is_back()
    other.publisher.bus_is_back()
    await other.turn(1.2)
    assert broker.find(Bucket.RUNNING, "rows.other") is not None
    other.say(names[0], "task_completed")
    await other.turn(1.2)
    await me.turn(2.4)
    assert me.tables[-1]["total"] == 4


async def test_rows_that_were_left_by_a_worker_before_it_was_seen_live_are_in_the_table_once_it_is(
    autojump_clock: MockClock,
) -> None:
    broker, mine, theirs = MemoryBroker(), range(8), range(8, SHARES)
    me, other = Viewers(broker, "me", mine, "third"), Viewers(broker, "other", theirs, "me")
    other.say(channels(theirs)[0], "task_started")
    await other.turn(1.2)
    await me.turn(1.2)
    assert me.tables[-1]["total"] == 0
    me.live.add("other")
    await me.turn(1.2)
    assert me.tables[-1]["total"] == 1
