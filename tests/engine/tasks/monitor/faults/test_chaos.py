"""What must not shake the task monitor: clocks that are wrong, invented tasks, faults of our own, lost messages."""

import tracemalloc

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import NamespaceListener
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Stored
from fanline.engine.cluster.shares import SHARES
from fanline.engine.tasks.monitor import reader as reader_module
from fanline.engine.tasks.monitor import share as share_module
from fanline.engine.tasks.monitor.monitored_task import RECORD_SECONDS, STRANGER_SECONDS
from fanline.engine.tasks.monitor.stored.entry import entry_key
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.names import Bucket
from tests.engine.tasks.monitor.world import World

HOUR_MS = 3_600_000
MAX_STRANGERS = 50


class LossyBus(MemoryBus):
    """What its worker hears of a namespace is lost while it is `deaf`."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.deaf = False

    def tell_listener(self, stored: Stored) -> None:
        if not self.deaf:
            super().tell_listener(stored)


# --- clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize("who", ["producers", "workers"])
async def test_a_clock_that_is_hours_off_moves_no_deadline(
    autojump_clock: MockClock, world: World, who: str, hours: int
) -> None:
    setattr(world, f"{who}_ahead", hours * HOUR_MS)
    async with world.running_monitor():
        await world.say("time", "started", timeout=5)
        await world.say("stop", "started")
        await world.say("stop", "cancel_requested", by="ann", deadline=5)
        await world.say("ask", "started")
        await world.say("ask", "confirmation_required", ask="q", deadline=5)
        await trio.sleep(4.9)
        assert [await world.timer_events(task) for task in ("time", "stop", "ask")] == [[], [], []]
        await trio.sleep(0.8)
        names = [await world.timer_event_names(task) for task in ("time", "stop", "ask")]
        assert names == [["task_timeout"], ["task_cancelled"], ["task_confirmation_expired"]]


async def test_deadlines_outlive_their_worker_whatever_the_producers_clock_says(
    autojump_clock: MockClock, world: World
) -> None:
    world.producers_ahead = -2 * HOUR_MS
    async with world.running_monitor():
        await world.say("time", "started", timeout=600)
        await trio.sleep(300)
    async with world.running_monitor():
        await trio.sleep(295)
        assert await world.timer_events("time") == []
        await trio.sleep(10)
        assert await world.timer_event_names("time") == ["task_timeout"]


# --- lost messages, and too many ----------------------------------------------------------------------------------


async def test_a_message_that_was_lost_is_noticed_by_the_next_one_or_soon_without(
    autojump_clock: MockClock, world: World
) -> None:
    bus = LossyBus(world.broker)
    async with world.running_monitor(bus):
        for task in ("a", "b"):
            await world.say(task, "started", timeout=60)
        await trio.sleep(1)
        for others in (1, 0):
            bus.deaf = True
            await world.say("a", "paused")
            await world.say("a", "resumed")
            await world.say("b", "confirmation_required", ask=f"q{others}", deadline=1e6)
            bus.deaf = False
            for _ in range(others):
                await world.say("c", "started")
            await trio.sleep(1 if others else 2 * reader_module.CHECK_SECONDS + 0.5)
            entry = await world.bus.kv_get(Bucket.RUNNING, entry_key("task:b"))
            assert entry is not None
            assert msgspec.json.decode(entry.value)["snapshot"]["ask"]["id"] == f"q{others}"


async def test_an_end_that_the_monitor_has_not_heard_yet_is_final(autojump_clock: MockClock, world: World) -> None:
    bus = LossyBus(world.broker)
    async with world.running_monitor(bus):
        await world.say("a", "started", heartbeat=2, timeout=3)
        await trio.sleep(1)
        bus.deaf = True
        await world.say("a", "completed")
        await trio.sleep(10)
        assert await world.timer_events("a") == []
        assert await world.running() == set()


async def test_messages_that_come_faster_than_they_are_folded_are_read_from_the_store(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_QUEUE", 10)
    async with world.running_monitor():
        await world.say("a", "started", title="T")
        await trio.sleep(1)
        for number in range(300):
            await world.say("a", "output", lines=[str(number)])
        await world.say("a", "completed")
        await trio.sleep(2)
        record = await world.record("a")
        assert record is not None
        lines = [line for batch in record["output"] for line in batch["lines"]]
        assert (record["snapshot"]["state"], lines) == ("completed", [str(number) for number in range(300)])


async def test_an_output_is_recorded_whole_however_often_it_is_recorded(
    autojump_clock: MockClock, world: World
) -> None:
    for run in range(2):
        async with world.running_monitor():
            if not run:
                await world.say("a", "started")
            for number in range(5):
                await world.say("a", "output", lines=[f"{run} {number}"])
                await trio.sleep(RECORD_SECONDS * 0.7)
            await trio.sleep(RECORD_SECONDS + 1)
            record = await world.record("a")
            assert record is not None
            assert record["snapshot"]["lines"] == 5 * (run + 1)
            lines = [line for batch in record["output"] for line in batch["lines"]]
    assert lines == [f"{run} {number}" for run in range(2) for number in range(5)]
    assert (await world.fold("a")).snapshot.lines == 10


# --- invented tasks -----------------------------------------------------------------------------------------------


async def test_invented_tasks_leave_memory_bounded_and_nothing_in_the_store(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_module, "MAX_STRANGERS", MAX_STRANGERS)
    count, payload = 20_000, b'{"v":1,"e":"task_progress","d":{"percent":1}}'
    listeners: dict[str, NamespaceListener] = {}
    bus = MemoryBus(world.broker)
    async with world.running_monitor(bus):
        await world.say("real", "started", timeout=100)
        await trio.sleep(1)
        listeners |= bus._listeners
        (listener,) = listeners.values()
        tracemalloc.start()
        try:
            for number in range(count):  # as the bus would hand them over: storing them here takes too long
                channel = f"task:invented-{number}"
                world.broker.beat(channel)
                if listener.wants(channel, number + 2):
                    listener.take(Stored(channel, payload, world.position(number + 2)))
                if number % 1000 == 0:
                    await trio.sleep(0.1)
            await trio.sleep(10)
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
        finally:
            tracemalloc.stop()
        assert world.counters.tasks_refused == count - SHARES * MAX_STRANGERS
        assert caplog.text.count("that no event has announced") == SHARES
        assert (await world.table())["total"] == SHARES * MAX_STRANGERS + 1
        await trio.sleep(STRANGER_SECONDS + 5)
        assert (await world.table())["total"] == 1
        assert await world.running() == {"task:real"}
        assert set(await world.bus.kv_entries(Bucket.TASKS)) == {"task.real"}
        await trio.sleep(40)
        assert await world.timer_event_names("real") == ["task_timeout"]


# --- faults of our own --------------------------------------------------------------------------------------------


def break_on_poison(world: World, stored: Stored) -> Envelope | None:
    if b"poison" in stored.payload:
        raise RecursionError
    return world.reader.read_stored(stored)


async def test_a_poisoned_message_is_left_out_by_every_worker_that_meets_it(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def read(stored: Stored) -> Envelope | None:
        return break_on_poison(world, stored)

    for _ in range(3):
        async with world.running_monitor(read=read):
            await world.say("a", "progress", message="poison")
            await world.say("a", "started", timeout=20)
            await world.say("a", "progress", message="poison")
            await world.say("a", "paused")
            await trio.sleep(5)
    async with world.running_monitor(read=read):
        await trio.sleep(20)
        assert await world.timer_event_names("a") == ["task_timeout"]
    assert caplog.text.count("task:a: message 1 is left out") == 1
    assert "begins again" not in caplog.text


@pytest.mark.parametrize("value", [b"[", b"7", b"{}", b'{"epoch":1}', b"null", b"\xff", b'{"a":' * 100_000])
async def test_poisoned_records_and_entries_are_left_out(
    autojump_clock: MockClock, world: World, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await world.bus.kv_put(Bucket.TASKS, "task.a", value, 1e6)
    await world.bus.kv_put(Bucket.RUNNING, entry_key("task:b"), value, 1e6)
    await world.bus.kv_put(Bucket.RUNNING, "task.old", b"5.0", 1e6)  # as former versions wrote them
    async with world.running_monitor():
        for task in ("a", "b"):
            await world.say(task, "started", timeout=3)
        await trio.sleep(5)
        assert [await world.timer_event_names(task) for task in ("a", "b")] == [["task_timeout"]] * 2
    assert "cannot be read" in caplog.text
    assert "begins again" not in caplog.text


async def test_a_worker_that_fails_to_govern_its_shares_gives_them_back_and_begins_again(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    async with world.running_monitor():
        await world.say("a", "started", timeout=10)
        await trio.sleep(1)
        with monkeypatch.context() as patch:
            patch.setattr("fanline.engine.tasks.monitor.holdings.Holdings._foreign", fail)
            await trio.sleep(1)
            assert set(await world.holders()) == {""}
        await trio.sleep(10)
        assert await world.timer_event_names("a") == ["task_timeout"]
    assert caplog.text.count("the shares of the tasks: failed; it begins again") == 1


# --- a holder that was asleep -------------------------------------------------------------------------------------


async def test_what_a_holder_that_was_asleep_still_sends_overwrites_nothing(
    autojump_clock: MockClock, world: World
) -> None:
    """It is stopped between its decision to write and the write, and goes on when another worker has its shares."""
    bus = MemoryBus(world.broker)
    async with world.running_monitor(bus):
        await world.say("a", "started", heartbeat=1000)
        await trio.sleep(1)
        stale = {
            bucket: (key, await world.bus.kv_get(bucket, key))
            for bucket, key in ((Bucket.TASKS, "task.a"), (Bucket.RUNNING, entry_key("task:a")))
        }
        await world.say("a", "completed")
        await trio.sleep(3)
        for bucket, (key, entry) in stale.items():
            assert entry is not None
            with pytest.raises(Exception, match="has changed"):
                await bus.kv_put(bucket, key, entry.value, 60, entry.revision)
        record = await world.record("a")
        assert record is not None
        assert record["snapshot"]["state"] == "completed"
        assert await world.running() == set()
        ended = msgspec.json.decode((await world.stored("task:a"))[-1].payload)
        assert ended["e"] == "task_completed"
