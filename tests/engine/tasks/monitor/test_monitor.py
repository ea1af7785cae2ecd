"""The task monitor on the bus in memory, with a clock that jumps: what it stores, and which worker is the monitor."""

from collections.abc import Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import KvEntry, StoreAck, Stored
from fanline.engine.cluster.shares import share_of
from fanline.engine.tasks.monitor import share as share_module
from fanline.engine.tasks.monitor.monitored_task import LINGER_SECONDS
from fanline.engine.tasks.monitor.stored.entry import entry_key
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.names import Bucket
from tests.engine.tasks.monitor.world import MortalBus, World


class RecordingBus(MemoryBus):
    """Remembers on which channels its worker has stored something, and whether it hears beats."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.stores: list[str] = []
        self.hears_beats = False

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        self.hears_beats = take is not None
        super().hear_beats(take)

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        self.stores.append(channel)
        return await super().store(channel, payload, store_id, last, signed=signed)


class MeetingBus(RecordingBus):
    """Waits with what it stores on task channels until `parties` of them have something to store."""

    def __init__(self, broker: MemoryBroker, parties: list[trio.Event]) -> None:
        super().__init__(broker)
        self._parties = parties
        self._here = trio.Event()
        parties.append(self._here)

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        if channel.startswith("task:"):
            self._here.set()
            for party in self._parties:
                await party.wait()
        return await super().store(channel, payload, store_id, last, signed=signed)


class SplitBus(MeetingBus):
    """Knows no other worker, and has leases of its own; so its worker holds those that another one holds as well."""

    def __init__(self, broker: MemoryBroker, parties: list[trio.Event]) -> None:
        super().__init__(broker, parties)
        self._alone = MemoryBus(MemoryBroker(clock=broker.clock))

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        alone = bucket in (Bucket.LEASES, Bucket.WORKERS)
        return await (self._alone.kv_entries(bucket, prefix) if alone else super().kv_entries(bucket, prefix, after))

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        assert bucket is Bucket.LEASES
        return await self._alone.kv_update(bucket, key, value, revision)

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, revision: int | None = None) -> int:
        if bucket is Bucket.WORKERS:
            return await self._alone.kv_put(bucket, key, value, seconds)
        return await super().kv_put(bucket, key, value, seconds, revision)


class SleepyBus(MemoryBus):
    """While it is not `awake`, its worker hears nothing of its leases, and so cannot renew them."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.awake = trio.Event()
        self.awake.set()

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        if bucket is Bucket.LEASES:
            await self.awake.wait()
        return await super().kv_entries(bucket, prefix, after)

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        if bucket is Bucket.LEASES:
            await self.awake.wait()
        return await super().kv_update(bucket, key, value, revision)


# --- timer events -------------------------------------------------------------------------------------------------


async def test_silence_is_noticed_within_the_heartbeat_and_a_second_and_once(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        await world.say("a", "started", heartbeat=5)
        await trio.sleep(4.9)
        assert await world.timer_events("a") == []
        await trio.sleep(1.1)
        assert await world.timer_events("a") == [("task_stalled", {})]
        await trio.sleep(60)
        assert await world.timer_events("a") == [("task_stalled", {})]


async def test_beats_and_the_producers_events_are_signs_of_life_and_the_engines_own_are_not(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        for task in ("beats", "speaks", "stops"):
            await world.say(task, "started", heartbeat=2)
        for _ in range(10):
            await trio.sleep(1)
            world.broker.beat("task:beats")
            world.broker.beat("task:unknown")
            await world.say("speaks", "progress", percent=1)
            await world.say("stops", "input", by="ann", value=1)
        names = [await world.timer_event_names(task) for task in ("beats", "speaks", "stops")]
        assert names == [[], [], ["task_stalled"]]


async def test_a_beat_ends_a_stall_and_the_task_may_stall_again(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        await world.say("a", "started", heartbeat=0.1)
        await trio.sleep(1)
        world.broker.beat("task:a")
        await trio.sleep(10)
        assert await world.timer_event_names("a") == ["task_stalled", "task_heard", "task_stalled"]
        await world.say("a", "progress", percent=5)
        await trio.sleep(1)
        assert await world.timer_event_names("a") == ["task_stalled", "task_heard", "task_stalled", "task_stalled"]


async def test_deadlines_are_kept(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("stop", "started")
        await world.say("stop", "cancel_requested", by="ann", deadline=3)
        await world.say("ask", "started")
        await world.say("ask", "confirmation_required", ask="q1", deadline=3)
        await world.say("time", "started", timeout=3)
        await trio.sleep(2.9)
        assert [await world.timer_events(task) for task in ("stop", "ask", "time")] == [[], [], []]
        await trio.sleep(0.6)
        assert await world.timer_events("stop") == [("task_cancelled", {"forced": True, "by": "ann"})]
        assert await world.timer_events("ask") == [("task_confirmation_expired", {"ask": "q1"})]
        assert await world.timer_events("time") == [("task_timeout", {"error": "it did not end within 3 seconds"})]
        await trio.sleep(30)
        assert [len(await world.timer_events(task)) for task in ("stop", "ask", "time")] == [1, 1, 1]


async def test_a_timer_event_names_the_attempt_it_is_about(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a", "started", heartbeat=1, attempt=3)
        await trio.sleep(3)
        (*_, stalled) = await world.stored("task:a")
        assert msgspec.json.decode(stalled.payload)["d"] == {"attempt": 3}


# --- which worker is the monitor ----------------------------------------------------------------------------------


async def test_when_the_monitors_worker_is_killed_another_decides(autojump_clock: MockClock, world: World) -> None:
    bus = MortalBus(world.broker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run_monitor, bus)
        await trio.sleep(1)
        nursery.start_soon(world.run_monitor, MemoryBus(world.broker))
        await world.say("a", "started", heartbeat=2)
        await world.say("b", "started", heartbeat=2)
        await trio.sleep(1)
        bus.kill()
        await trio.sleep(2)
        await world.say("b", "completed")
        await trio.sleep(4.5)  # 3 s until the lease is free, 0.5 s until another looks, the heartbeat, a turn
        assert await world.timer_event_names("a") == ["task_stalled"]
        assert await world.timer_event_names("b") == []
        nursery.cancel_scope.cancel()


async def test_a_timer_event_that_two_monitors_store_at_once_is_stored_once(
    autojump_clock: MockClock, world: World
) -> None:
    parties: list[trio.Event] = []
    one, other = MeetingBus(world.broker, parties), SplitBus(world.broker, parties)
    async with world.running_monitor(one), world.running_monitor(other):
        await trio.sleep(5)  # by now the other one does not think that the first is dead
        await world.say("a", "started", heartbeat=2, attempt=1)
        await trio.sleep(10)
        assert [bus.stores.count("task:a") for bus in (one, other)] == [1, 1]
        assert await world.timer_event_names("a") == ["task_stalled"]


async def test_a_monitor_that_may_have_lost_its_lease_stores_nothing(autojump_clock: MockClock, world: World) -> None:
    bus = SleepyBus(world.broker)
    async with world.running_monitor(bus):
        await world.say("a", "started", heartbeat=5)
        await trio.sleep(0.6)
        bus.awake = trio.Event()
        await trio.sleep(3)
        found = await world.record("a")
        assert found is not None
        await world.say("a", "paused")
        await trio.sleep(10)
        assert await world.record("a") == found
        assert await world.timer_events("a") == []


async def test_a_worker_that_becomes_the_monitor_again_knows_nothing_stale(
    autojump_clock: MockClock, world: World
) -> None:
    bus = SleepyBus(world.broker)
    async with world.running_monitor(bus):
        await trio.sleep(0.6)
        await world.say("a", "started", heartbeat=20)
        await trio.sleep(1)
        bus.awake = trio.Event()
        async with world.running_monitor():
            await trio.sleep(5)
            bus.awake.set()
            await trio.sleep(1)  # now it knows that it has lost the lease
            await world.say("a", "completed")
            await trio.sleep(1)
        await trio.sleep(60)
        assert await world.timer_events("a") == []
        assert (await world.table())["tasks"] == []


# --- outages ------------------------------------------------------------------------------------------------------


async def test_after_an_outage_no_producer_is_missed_too_early(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a", "started", heartbeat=2)
        await trio.sleep(1)
        world.broker.available = False
        await trio.sleep(30)
        world.broker.available = True
        await trio.sleep(2.5)
        world.broker.beat("task:a")  # it took a while to connect again
        await trio.sleep(1.5)
        assert await world.timer_event_names("a") == []
        await trio.sleep(3)
        assert await world.timer_event_names("a") == ["task_stalled"]


async def test_a_recreated_stream_is_followed_from_its_beginning(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a", "started", heartbeat=3)
        for _ in range(5):
            await world.say("a", "output", lines=["x"])
        await trio.sleep(1)
        world.broker.recreate("task")
        await world.say("b", "started", heartbeat=3)
        await trio.sleep(5)
        assert await world.timer_event_names("a") == ["task_stalled"]
        assert await world.timer_event_names("b") == ["task_stalled"]
        await world.say("a", "completed")
        await trio.sleep(1)
        record = await world.record("a")
        assert record is not None
        assert (record["snapshot"]["state"], record["snapshot"]["lines"]) == ("completed", 5)


@pytest.mark.parametrize("copied", [True, False])
async def test_another_start_from_the_same_store_lets_a_task_go_on_as_it_was(
    autojump_clock: MockClock, world: World, copied: bool
) -> None:
    async with world.running_monitor():
        await world.say("a", "started", heartbeat=60)
        for _ in range(5):
            await world.say("a", "output", lines=["x"])
        await trio.sleep(2)
        world.broker.streams["task"].rewind(4 if copied else 1000)
        for bus in world.broker.buses:
            bus.on_loss(world.broker.clock())
        await world.say("a", "output", lines=["y"])  # heard before the monitor has asked for the epoch
        await world.say("a", "completed")
        await trio.sleep(5)
        record = await world.record("a")
        assert record is not None
        assert record["epoch"] == (await world.bus.stream_state("task:a")).epoch.name
        assert (record["snapshot"]["state"], record["snapshot"]["lines"]) == ("completed", 4 if copied else 6)


async def test_a_stream_that_was_recreated_while_there_was_no_monitor_is_read_from_its_beginning(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        for _ in range(5):
            await world.say("a", "started", heartbeat=60)
        await trio.sleep(2)
    world.broker.recreate("task")
    await world.say("b", "started", heartbeat=3)
    async with world.running_monitor():
        await trio.sleep(5)
        assert await world.timer_event_names("b") == ["task_stalled"]


# --- bad input ----------------------------------------------------------------------------------------------------


async def test_messages_on_subjects_that_belong_to_no_channel_are_ignored(
    autojump_clock: MockClock, world: World
) -> None:
    odd = ("*", "a.>", "a b", "\u00fc", "x" * 300)
    async with world.running_monitor():
        for task in odd:
            await world.say(task, "started", heartbeat=1)
        await world.say("a", "started")
        await trio.sleep(5)
        assert await world.running() == {"task:a"}
        assert set(await world.bus.kv_entries(Bucket.TASKS)) == {"task.a"}
        assert [await world.timer_events(task) for task in odd] == [[]] * len(odd)


async def test_a_message_that_breaks_the_fold_is_left_out_and_logged(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def break_on_poison(stored: Stored) -> Envelope | None:
        if b"poison" in stored.payload:
            raise RecursionError
        return world.reader.read_stored(stored)

    async with world.running_monitor(read=break_on_poison):
        await world.say("a", "started", heartbeat=1)
        await world.say("a", "progress", message="poison")
        await trio.sleep(5)
        assert await world.timer_event_names("a") == ["task_stalled"]
    assert "task:a: message 2 is left out" in caplog.text


async def test_tasks_whose_messages_wait_while_their_stream_is_recreated_are_monitored_afterwards(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus(world.broker)

    async def fail(*args: object) -> dict[str, KvEntry]:
        raise BusError("JetStream does not answer yet")

    async with world.running_monitor(bus):
        await world.until_held()
        for _ in range(20):
            await world.say("b", "started")
        with monkeypatch.context() as patch:
            patch.setattr(bus, "kv_get_many", fail)
            await world.say("a", "started")
            await trio.sleep(1)
            world.broker.recreate("task")
            bus.on_loss(world.broker.clock())
            await trio.sleep(1)
        await world.say("a", "started", timeout=5)
        await trio.sleep(20)
        assert await world.timer_event_names("a") == ["task_timeout"]


async def test_the_entry_of_a_task_that_has_ended_reports_nothing_when_it_comes_back(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Expired entries come back when nats-server is killed. Tasks are not restored before they have to, as one of many.
    monkeypatch.setattr("fanline.engine.tasks.monitor.stored.restorer._WARMED_AT_ONCE", 0)
    async with world.running_monitor():
        await world.until_held()
        await world.say("1", "created")
        await world.say("1", "started", heartbeat=5, timeout=20)
        await trio.sleep(1)
        key = entry_key("task:1")
        entry = world.broker.find(Bucket.RUNNING, key)
        assert entry is not None
        await world.say("1", "completed")
        await trio.sleep(60)
    world.broker.write(Bucket.RUNNING, key, entry.value)
    await world.say("2", "created")  # so that the streams have been read beyond the end of the first one
    async with world.running_monitor():
        await trio.sleep(60)
        assert await world.timer_events("1") == []
        left = world.broker.find(Bucket.RUNNING, key)
        assert left is None or not left.value


async def test_an_entry_that_is_written_too_late_shows_no_task_that_has_ended(
    autojump_clock: MockClock, world: World
) -> None:
    """By a worker that was stopped in the middle of writing it, while another one has recorded the end."""
    await world.say("a", "started")
    async with world.running_monitor():
        await trio.sleep(5)
    entry = await world.bus.kv_get(Bucket.RUNNING, entry_key("task:a"))
    assert entry is not None
    await world.say("a", "completed")
    async with world.running_monitor():
        await trio.sleep(5)
    assert await world.running() == set()
    await world.bus.kv_put(Bucket.RUNNING, entry_key("task:a"), entry.value, 3600)
    async with world.running_monitor():
        await trio.sleep(5)
        assert (await world.table()) == {"tasks": [], "total": 0}
    assert await world.running() == set()


async def test_what_comes_late_for_tasks_with_a_record_takes_no_room_of_strangers(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_module, "MAX_STRANGERS", 2)
    names = [name for name in map(str, range(1000)) if share_of(f"task:{name}") == 0][:4]
    async with world.running_monitor():
        for name in names[:3]:
            await world.say(name, "started")
            await world.say(name, "completed")
        await trio.sleep(LINGER_SECONDS + 10)  # until they are forgotten
        for name in names[:3]:
            await world.say(name, "progress", percent=1)
            await trio.sleep(LINGER_SECONDS + 10)
        await world.say(names[3], "progress", percent=1)
        await trio.sleep(5)
        assert world.counters.tasks_refused == 0
