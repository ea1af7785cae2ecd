"""A world for the task monitor: the bus in memory, producers that speak, and workers that can be killed.

Its clocks are Trio's, so with `autojump_clock` hours pass in no time: that of the store, and those of workers and
producers, which may be wrong.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Stored, StreamPosition
from fanline.engine.channels.messages import MessageReader
from fanline.engine.cluster.members import Members
from fanline.engine.cluster.shares import SHARES
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitor.holdings import lease_key
from fanline.engine.tasks.monitor.lease import value_of
from fanline.engine.tasks.monitor.monitor import MESSAGE_ID_PREFIX, TaskMonitor
from fanline.engine.tasks.monitor.roster import ReadMessage
from fanline.engine.tasks.monitor.stored.entry import channel_of_entry
from fanline.engine.tasks.monitor.stored.table import ROWS_PREFIX, TABLE_CHANNEL
from fanline.protocol.nats.names import Bucket
from fanline.protocol.tasks.states import ENGINE_EVENTS

EPOCH_MS = 1_700_000_000_000
"""The wall clock, in Unix milliseconds, when Trio's clock is at zero."""


def now_ms() -> int:
    return EPOCH_MS + round(trio.current_time() * 1000)


class MortalBus(MemoryBus):
    """The bus of a worker that can be killed: from then on nothing that it asks for happens.

    `requests`: number of requests after which it is killed; each of them then takes some time.
    """

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
    """A broker, its producers, and what they and the monitors have stored."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(clock=lambda: now_ms() / 1000)
        self.namespaces = Namespaces()
        self.bus = MemoryBus(self.broker)
        self.counters = Counters()
        self.reader = MessageReader(self.namespaces, self.counters, Faults(self.counters), now_ms)
        self.producers_ahead = 0
        """Milliseconds by which the clocks of producers are wrong."""
        self.workers_ahead = 0
        self._messages = 0

    async def say(self, task: str, event: str, **data: Any) -> None:
        """Store an event of the task's producer, or of the engine if only that says it."""
        self._messages += 1
        name = f"p{self._messages}"
        payload = {"v": 1, "e": f"task_{event}", "i": name, "ts": now_ms() + self.producers_ahead, "d": data}
        await self.bus.store(f"task:{task}", msgspec.json.encode(payload), name, signed=payload["e"] in ENGINE_EVENTS)

    async def run_monitor(self, bus: MemoryBus, read: ReadMessage | None = None) -> None:
        """The monitor of one worker, for ever."""
        members = Members(bus)
        read = read or self.reader.read_stored
        monitor = TaskMonitor(
            bus,
            members,
            self.namespaces,
            read,
            self.reader.refuse,
            self.counters,
            Faults(self.counters),
            lambda: now_ms() + self.workers_ahead,
        )
        bus.on_loss = lambda _: monitor.bus_is_back()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(members.run)
            nursery.start_soon(monitor.run)

    @asynccontextmanager
    async def running_monitor(
        self, bus: MemoryBus | None = None, read: ReadMessage | None = None
    ) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_monitor, bus or MemoryBus(self.broker), read)
            yield
            nursery.cancel_scope.cancel()

    async def holders(self) -> list[str]:
        """The worker that holds each share; "" for none."""
        return [value_of(await self.bus.kv_get(Bucket.LEASES, lease_key(share))).worker for share in range(SHARES)]

    async def until_held(self) -> None:
        """Wait until every share has a holder."""
        while not all(await self.holders()):
            await trio.sleep(0.01)

    def position(self, offset: int) -> StreamPosition:
        """The position of a message that is stored now, as the first one of its channel."""
        return StreamPosition(offset, 0, datetime.fromtimestamp(now_ms() / 1000, UTC).isoformat())

    async def stored(self, channel: str) -> list[Stored]:
        """All messages that the stream holds of a channel."""
        return (await self.bus.read(channel, 1)).messages

    async def timer_events(self, task: str) -> list[tuple[str, dict[str, Any]]]:
        """What the monitors have stored of a task: events and their data, without the attempt."""
        messages = [msgspec.json.decode(stored.payload) for stored in await self.stored(f"task:{task}")]
        own = [message for message in messages if message["i"].startswith(MESSAGE_ID_PREFIX)]
        return [(m["e"], {key: value for key, value in m["d"].items() if key != "attempt"}) for m in own]

    async def timer_event_names(self, task: str) -> list[str]:
        return [event for event, _ in await self.timer_events(task)]

    async def fold(self, task: str) -> TaskFold:
        """Everything folded from the beginning, as every worker would."""
        fold = TaskFold(f"task:{task}")
        for stored in await self.stored(fold.channel):
            envelope = self.reader.read_stored(stored)
            if envelope is not None:
                fold.take(envelope, stored.position.offset)
        return fold

    async def record(self, task: str) -> dict[str, Any] | None:
        """The task record."""
        entry = await self.bus.kv_get(Bucket.TASKS, f"task.{task}")
        return None if entry is None else msgspec.json.decode(entry.value)

    async def running(self) -> set[str]:
        """The channels of the tasks that are listed as running."""
        keys = await self.bus.kv_entries(Bucket.RUNNING)
        return {channel_of_entry(key) for key in keys if not key.startswith(ROWS_PREFIX)}

    async def table(self) -> dict[str, Any]:
        """The newest table of running tasks."""
        return dict(msgspec.json.decode((await self.stored(TABLE_CHANNEL))[-1].payload)["d"])
