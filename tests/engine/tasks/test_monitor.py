"""The keeper on the bus in memory, with a clock that jumps: what it tells, and that nobody can kill it harmfully."""

import itertools
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import BusError, Stored
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.channels.messages import MessageReader
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitor import TaskMonitor
from fanline.engine.tasks.monitored import MonitoredTask
from fanline.engine.tasks.table import TABLE_CHANNEL
from fanline.engine.tasks.timers import TimerEvent
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.names import Bucket
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState

EPOCH_MS = 1_700_000_000_000


def now_ms() -> int:
    return EPOCH_MS + round(trio.current_time() * 1000)


class MortalBus(MemoryBus):
    """A worker's, until the worker is killed: from then on nothing it asks for happens."""

    def __init__(self, broker: MemoryBroker, requests: int | None = None) -> None:
        super().__init__(broker)
        self._left = requests
        self.dead = trio.Event()

    def kill(self) -> None:
        self.hear_beats(None)
        self.dead.set()

    async def _reach_broker(self) -> None:
        await super()._reach_broker()
        if self._left is not None:
            await trio.sleep(0.01)
            self._left -= 1
            if self._left < 0:
                self.kill()
        if self.dead.is_set():
            raise BusError("this worker is dead")


class World:
    """A broker, its producers, and what they and the keepers have stored."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.namespaces = Namespaces()
        self.bus = MemoryBus(self.broker)
        self.reader = MessageReader(self.namespaces, Counters(), now_ms)
        self._said = 0

    async def say(self, task: str, event: str, **data: Any) -> None:
        self._said += 1
        payload = {"v": 1, "e": f"task_{event}", "i": f"p{self._said}", "ts": now_ms(), "d": data}
        await self.bus.store(f"task:{task}", msgspec.json.encode(payload), f"p{self._said}")

    def keeper(self, bus: MemoryBus) -> TaskMonitor:
        return TaskMonitor(bus, self.namespaces, self.reader.read_stored, self.reader.refuse, now_ms)

    @asynccontextmanager
    async def running_keeper(self, bus: MemoryBus | None = None) -> AsyncIterator[TaskMonitor]:
        keeper = self.keeper(bus or MemoryBus(self.broker))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            yield keeper
            nursery.cancel_scope.cancel()

    async def stored(self, channel: str) -> list[Stored]:
        """All that is in the stream."""
        return (await self.bus.read(channel, 1)).messages

    async def told(self, task: str) -> list[tuple[str, dict[str, Any]]]:
        """The keepers' events of a task, without the attempt."""
        messages = [msgspec.json.decode(stored.payload) for stored in await self.stored(f"task:{task}")]
        own = [message for message in messages if message["i"].startswith("keeper-")]
        return [(m["e"], {key: value for key, value in m["d"].items() if key != "attempt"}) for m in own]

    async def events(self, task: str) -> list[str]:
        return [event for event, _ in await self.told(task)]

    async def fold(self, task: str) -> TaskFold:
        """Everything folded from the beginning, as every worker would."""
        log = TaskFold(f"task:{task}")
        for stored in await self.stored(log.channel):
            envelope = self.reader.read_stored(stored)
            if envelope is not None:
                log.take(envelope, stored.position.offset)
        return log

    async def checkpoint(self, task: str) -> dict[str, Any] | None:
        note = await self.bus.kv_get(Bucket.TASKS, f"task.{task}")
        return None if note is None else msgspec.json.decode(note.value)

    async def table(self) -> dict[str, Any]:
        return dict(msgspec.json.decode((await self.stored(TABLE_CHANNEL))[-1].payload)["d"])


@pytest.fixture
def world() -> World:
    return World()


# --- verdicts -----------------------------------------------------------------------------------------------------


async def test_silence_is_told_within_the_heartbeat_and_a_second_and_once(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_keeper():
        await trio.sleep(1)
        await world.say("a", "started", heartbeat=5)
        await trio.sleep(4.9)
        assert await world.told("a") == []
        await trio.sleep(1.1)
        assert await world.told("a") == [("task_stalled", {})]
        await trio.sleep(60)
        assert await world.told("a") == [("task_stalled", {})]


async def test_beats_and_events_are_signs_of_life_and_the_engines_own_are_not(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_keeper():
        await trio.sleep(1)
        for task in ("beats", "speaks", "stops"):
            await world.say(task, "started", heartbeat=2)
        for _ in range(10):
            await trio.sleep(1)
            world.broker.beat("task:beats")
            world.broker.beat("task:nobody")
            await world.say("speaks", "progress", percent=1)
            await world.say("stops", "input", by="ann", value=1)
        assert [await world.events(task) for task in ("beats", "speaks", "stops")] == [[], [], ["task_stalled"]]


async def test_a_beat_ends_a_stall_and_it_may_stall_again(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await trio.sleep(1)
        await world.say("a", "started", heartbeat=0.1)
        await trio.sleep(1)
        world.broker.beat("task:a")
        await trio.sleep(10)
        assert await world.events("a") == ["task_stalled", "task_heard", "task_stalled"]
        await world.say("a", "progress", percent=5)
        await trio.sleep(1)
        assert await world.events("a") == ["task_stalled", "task_heard", "task_stalled", "task_stalled"]


async def test_deadlines_are_kept(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await world.say("stop", "started")
        await world.say("stop", "cancel_requested", by="ann", deadline=3)
        await world.say("ask", "started")
        await world.say("ask", "confirmation_required", ask="q1", deadline=3)
        await world.say("time", "started", timeout=3)
        await trio.sleep(2.9)
        assert [await world.told(task) for task in ("stop", "ask", "time")] == [[], [], []]
        await trio.sleep(0.6)
        assert await world.told("stop") == [("task_cancelled", {"forced": True, "by": "ann"})]
        assert await world.told("ask") == [("task_confirmation_expired", {"ask": "q1"})]
        assert await world.told("time") == [("task_timeout", {"error": "it did not end within 3 seconds"})]
        await trio.sleep(30)
        assert [len(await world.told(task)) for task in ("stop", "ask", "time")] == [1, 1, 1]


async def test_a_verdict_names_the_attempt_it_is_about(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await world.say("a", "started", heartbeat=1, attempt=3)
        await trio.sleep(3)
        (*_, stalled) = await world.stored("task:a")
        assert msgspec.json.decode(stalled.payload)["d"] == {"attempt": 3}


# --- who keeps ----------------------------------------------------------------------------------------------------


async def test_of_two_one_keeps_and_when_it_goes_the_other_takes_over_at_once(
    autojump_clock: MockClock, world: World
) -> None:
    async with trio.open_nursery() as nursery:
        async with world.running_keeper() as first:
            await trio.sleep(1)
            second = world.keeper(MemoryBus(world.broker))
            nursery.start_soon(second.run)
            await world.say("a", "started", heartbeat=2)
            await trio.sleep(1)
            assert (first._lease.valid, second._lease.valid) == (True, False)
        await trio.sleep(0.6)
        assert (first._lease.valid, second._lease.valid) == (False, True)
        await trio.sleep(3)
        assert await world.events("a") == ["task_stalled"]
        nursery.cancel_scope.cancel()


async def test_when_the_holder_is_killed_another_decides(autojump_clock: MockClock, world: World) -> None:
    bus = MortalBus(world.broker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper(bus).run)
        await trio.sleep(1)
        nursery.start_soon(world.keeper(MemoryBus(world.broker)).run)
        await world.say("a", "started", heartbeat=2)
        await world.say("b", "started", heartbeat=2)
        await trio.sleep(1)
        bus.kill()
        await trio.sleep(2)
        await world.say("b", "completed")
        await trio.sleep(4.5)  # three seconds until the lease is free, half a one to look, the heartbeat, a turn
        assert await world.events("a") == ["task_stalled"]
        assert await world.events("b") == []
        nursery.cancel_scope.cancel()


async def test_two_that_come_to_the_same_verdict_store_it_once(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper() as one:
        await world.say("a", "started", heartbeat=60, attempt=1)
        await trio.sleep(1)
        other = world.keeper(MemoryBus(world.broker))
        other._lease = one._lease
        for keeper in (one, other):
            await keeper._store((one._watches["task:a"], TimerEvent(TaskEvent.STALLED, {})))
        await trio.sleep(1)
        assert await world.events("a") == ["task_stalled"]


def test_until_a_verdict_has_come_back_from_the_stream_no_other_is_told() -> None:
    log = TaskFold("task:a")
    log.snapshot, log.offset = Snapshot(TaskState.RUNNING, 1, heartbeat=1.0), 7
    watch = MonitoredTask(log, "e", 0.0, 0.0, marked=True)
    assert watch.verdict(5.0, EPOCH_MS) == (TaskEvent.STALLED, {})
    watch.awaited = 9
    assert watch.verdict(6.0, EPOCH_MS) is None
    watch.take(None, 8, -1.0)  # somebody else's message came before
    assert watch.verdict(6.0, EPOCH_MS) is None
    watch.take(None, 9, -1.0)
    assert watch.verdict(6.0, EPOCH_MS) is not None


async def test_a_keeper_that_was_asleep_writes_nothing_over_what_another_has_written(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_keeper() as keeper:
        await world.say("a", "started", heartbeat=1)
        await trio.sleep(0.6)
        keeper._lease._renewed = -math.inf  # as after a long sleep, until it has asked again
        keeper._lease.renew = trio.sleep_forever  # type: ignore[method-assign]
        found = await world.checkpoint("a")
        await world.say("a", "paused")
        await trio.sleep(5)
        assert await world.checkpoint("a") == found
        assert await world.told("a") == []


async def test_after_an_outage_nobody_is_missed_too_early(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await world.say("a", "started", heartbeat=2)
        await trio.sleep(1)
        world.broker.available = False
        await trio.sleep(30)
        world.broker.available = True
        await trio.sleep(2.5)
        world.broker.beat("task:a")  # it took a while to connect again
        await trio.sleep(1.5)
        assert await world.events("a") == []
        await trio.sleep(3)
        assert await world.events("a") == ["task_stalled"]


async def test_a_stream_made_anew_is_followed_from_its_beginning(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await world.say("a", "started", heartbeat=3)
        for _ in range(5):
            await world.say("a", "output", lines=["x"])
        await trio.sleep(1)
        world.broker.recreate("task")
        await world.say("b", "started", heartbeat=3)
        await trio.sleep(5)
        assert await world.events("a") == ["task_stalled"]
        assert await world.events("b") == ["task_stalled"]


# --- what is written down -----------------------------------------------------------------------------------------


async def test_a_state_is_written_down_at_once_and_progress_after_a_while(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_keeper():
        await world.say("a", "started", title="T")
        await trio.sleep(0.7)
        first = await world.checkpoint("a")
        assert first is not None
        assert (first["snapshot"]["state"], first["snapshot"]["title"], first["offset"]) == ("running", "T", 1)
        await world.say("a", "progress", percent=10)
        await trio.sleep(1)
        assert await world.checkpoint("a") == first
        await trio.sleep(10)
        later = await world.checkpoint("a")
        assert later is not None
        assert (later["snapshot"]["percent"], later["offset"]) == (10.0, 2)
        await world.say("a", "output", lines=["one", "two"])
        await world.say("a", "completed", result=42)
        await trio.sleep(0.5)
        last = await world.checkpoint("a")
        assert last is not None
        assert (last["snapshot"]["result"], last["output"][0]["lines"], last["offset"]) == (42, ["one", "two"], 4)


async def test_a_thousand_events_are_written_down_before_their_time(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper():
        await world.say("a", "started")
        await trio.sleep(1)
        for number in range(1000):
            await world.say("a", "output", lines=[str(number)])
        await trio.sleep(1)
        found = await world.checkpoint("a")
        assert found is not None
        assert found["snapshot"]["lines"] == 1000


async def test_a_task_is_marked_as_running_from_its_start_to_its_end(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper() as keeper:
        await world.say("a.b:c", "created")
        await world.say("custom", "of_its_own")
        await trio.sleep(1)
        assert set(await world.bus.kv_entries(Bucket.RUNNING)) == {"task.a.b:c"}
        await world.say("a.b:c", "failed", error="x")
        await trio.sleep(1)
        assert await world.bus.kv_entries(Bucket.RUNNING) == {}
        await trio.sleep(30)
        assert keeper._watches == {}
        await world.say("a.b:c", "started", attempt=2)
        await trio.sleep(1)
        assert set(await world.bus.kv_entries(Bucket.RUNNING)) == {"task.a.b:c"}
        found = await world.checkpoint("a.b:c")
        assert found is not None
        assert (found["snapshot"]["attempt"], found["snapshot"]["state"]) == (2, "running")


async def test_a_checkpoint_that_is_too_large_goes_without_its_output(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broker.max_payload = 3000
    async with world.running_keeper():
        await world.say("a", "started")
        for _ in range(10):
            await world.say("a", "output", lines=["x" * 1000])
        await trio.sleep(1)
        await world.say("a", "completed")
        await trio.sleep(1)
        found = await world.checkpoint("a")
        assert found is not None
        assert (found["snapshot"]["state"], found["snapshot"]["lines"], found["output"]) == ("completed", 10, [])
    assert caplog.text.count("checkpoints of task:a go without its output") == 1


async def test_the_table_is_told_newest_first_and_at_most_once_a_second(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_keeper():
        await trio.sleep(1)
        await world.say("a", "started", title="A")
        await trio.sleep(0.1)
        await world.say("b", "progress", percent=25, stage="s")
        await trio.sleep(1.5)
        table = await world.table()
        assert [(row["id"], row["state"], row["attempt"]) for row in table["tasks"]] == [
            ("b", "running", 1),
            ("a", "running", 1),
        ]
        assert table["total"] == 2
        assert (table["tasks"][0]["percent"], table["tasks"][0]["stage"]) == (25.0, "s")
        before = (await world.bus.stream_state(TABLE_CHANNEL)).last
        for number in range(30):
            await world.say("a", "progress", percent=number)
            await trio.sleep(0.1)
        assert 2 <= (await world.bus.stream_state(TABLE_CHANNEL)).last - before <= 4
        await world.say("a", "completed")
        await world.say("b", "completed")
        await trio.sleep(1.5)
        assert await world.table() == {"tasks": [], "total": 0}
        quiet = (await world.bus.stream_state(TABLE_CHANNEL)).last
        await trio.sleep(10)
        assert (await world.bus.stream_state(TABLE_CHANNEL)).last == quiet


async def test_a_table_that_is_too_large_has_fewer_rows(autojump_clock: MockClock, world: World) -> None:
    world.broker.max_payload = 3000
    async with world.running_keeper():
        for number in range(60):
            await world.say(str(number), "started", title="x" * 100)
            await trio.sleep(0.01)
        await trio.sleep(2)
        table = await world.table()
        assert table["total"] == 60
        rows = [int(row["id"]) for row in table["tasks"]]
        assert 5 < len(rows) < 60
        assert rows == list(range(59, 59 - len(rows), -1))


# --- bad input ----------------------------------------------------------------------------------------------------


async def test_what_is_published_on_no_channels_subject_is_left_alone(autojump_clock: MockClock, world: World) -> None:
    async with world.running_keeper() as keeper:
        for task in ("*", "a.>", "a b", "\u00fc", "x" * 300):
            await world.say(task, "started", heartbeat=1)
        await world.say("a", "started")
        await trio.sleep(5)
        assert set(keeper._watches) == {"task:a"}
        assert set(await world.bus.kv_entries(Bucket.RUNNING)) == {"task.a"}


async def test_a_message_that_breaks_the_fold_is_left_out_and_logged(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    read = world.reader.read_stored

    def break_on_poison(stored: Stored) -> Envelope | None:
        if b"poison" in stored.payload:
            raise RecursionError
        return read(stored)

    world.reader.read_stored = break_on_poison  # type: ignore[method-assign]
    async with world.running_keeper():
        await world.say("a", "started", heartbeat=1)
        await world.say("a", "progress", message="poison")
        await trio.sleep(5)
        assert await world.events("a") == ["task_stalled"]
    assert "message 2 of task:a was left out" in caplog.text


# --- killed anywhere ----------------------------------------------------------------------------------------------

_SOMETHING = ["progress", "output", "paused", "resumed", "completed", "started", "failed"]


async def produce(world: World, chance: random.Random, tasks: list[str]) -> None:
    attempts = dict.fromkeys(tasks, 1)
    for _ in range(120):
        task, event = chance.choice(tasks), chance.choice(_SOMETHING)
        if event == "started":
            attempts[task] += chance.randrange(2)
        data: dict[str, Any] = {"attempt": attempts[task]}
        data |= {"heartbeat": 5} if event == "started" else {"lines": ["x"]} if event == "output" else {}
        await world.say(task, event, **data)
        await trio.sleep(chance.random() * 0.2)


async def be_killed_again_and_again(world: World, chance: random.Random) -> None:
    while True:
        bus = MortalBus(world.broker, requests=chance.randrange(3, 120))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.keeper(bus).run)
            await bus.dead.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("requests", range(1, 45))
async def test_killed_at_any_request_a_keeper_leaves_enough_to_the_next(
    autojump_clock: MockClock, world: World, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fanline.engine.tasks.monitor.RENEW_SECONDS", 0.005
    )  # the lease is renewed between any two requests
    await world.say("silent", "started", heartbeat=1)
    await world.say("ended", "started", heartbeat=1)
    bus = MortalBus(world.broker, requests)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper(bus).run)
        await trio.sleep(0.1)
        await world.say("ended", "completed")
        await bus.dead.wait()
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    async with world.running_keeper():
        await trio.sleep(20)
    assert await world.events("silent") == ["task_stalled"]
    ended = await world.checkpoint("ended")
    assert ended is not None
    assert ended["snapshot"]["state"] == "completed"
    assert set(await world.bus.kv_entries(Bucket.RUNNING)) == {"task.silent"}


@pytest.mark.parametrize("seed", range(8))
async def test_killed_anywhere_keepers_lose_nothing_and_tell_nothing_twice(
    autojump_clock: MockClock, world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Requests take their time, and the lease is renewed between any two of them.
    monkeypatch.setattr("fanline.engine.tasks.monitor.RENEW_SECONDS", 0.01)
    chance = random.Random(seed)
    tasks = [f"t{number}" for number in range(8)]
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(be_killed_again_and_again, world, chance)
        await produce(world, chance, tasks)
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    async with world.running_keeper():
        await trio.sleep(60)
    running = set()
    for task in tasks:
        log, found = await world.fold(task), await world.checkpoint(task)
        if log.snapshot.state is TaskState.UNKNOWN:
            assert found is None
            continue
        assert found is not None
        wanted = msgspec.json.decode(log.record((await world.bus.stream_state("task:")).epoch))
        if log.snapshot.ended_for_good:  # what comes after the end changes nothing, and may be looked at again
            assert found.pop("offset") <= wanted.pop("offset")
        assert found == wanted, task
        assert log.snapshot.heartbeat is None or log.snapshot.state is not TaskState.RUNNING, "the silence was missed"
        if not log.snapshot.ended_for_good:
            running.add(f"task.{task}")
        messages = [msgspec.json.decode(stored.payload) for stored in await world.stored(f"task:{task}")]
        for before, after in itertools.pairwise(messages):
            assert not before["e"] == after["e"] == "task_stalled", "told twice"
    assert set(await world.bus.kv_entries(Bucket.RUNNING)) == running
