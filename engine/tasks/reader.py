"""Reads the streams of all task namespaces, in their order, into the roster.

The lease's position moves on only when what was read before it is recorded, so the next monitor begins with a message
too many rather than with one too few.
"""

import math
from collections.abc import Iterable

import trio

from fanline.engine.bus.interface import Bus, Page
from fanline.engine.bus.parallel import for_each
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import OnRefused, TaskFold
from fanline.engine.tasks.lease import Lease, ReadPosition
from fanline.engine.tasks.records import TaskRecords
from fanline.engine.tasks.restore import restore
from fanline.engine.tasks.roster import ReadMessage, TaskRoster
from fanline.protocol.channels import check_channel, namespace_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket, channel_of_key


class _TaskStream:
    """How far the stream of one namespace was read."""

    def __init__(self, namespace: str, epoch: str, position: ReadPosition | None) -> None:
        self.namespace = namespace
        self.epoch = epoch
        self.offset = position.offset if position is not None and position.epoch == epoch else 0
        self.caught_up = -math.inf
        """Everything stored before this moment, by Trio's clock, was taken."""


class StreamReader:
    """`load` once for each time that the lease is taken, then `catch_up` again and again."""

    def __init__(
        self,
        bus: Bus,
        namespaces: Namespaces,
        lease: Lease,
        roster: TaskRoster,
        records: TaskRecords,
        read_message: ReadMessage,
        on_refused: OnRefused,
    ) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._lease = lease
        self._roster = roster
        self._records = records
        self._read_message = read_message
        self._on_refused = on_refused
        self._streams: dict[str, _TaskStream] = {}

    def caught_up(self, channel: str) -> float:
        """All messages of a task that were stored before this moment, by Trio's clock, were taken."""
        return self._streams[namespace_of(channel)].caught_up

    async def load(self) -> None:
        """Restore the tasks that were running, up to where the last monitor stopped. BusError."""
        self._streams.clear()
        for name in self._namespaces.tasks():
            state = await self._bus.stream_state(_any_channel(name))
            self._streams[name] = _TaskStream(name, state.epoch, self._lease.positions.get(name))
        running = [channel_of_key(key) for key in await self._bus.kv_entries(Bucket.RUNNING)]
        for name, stream in self._streams.items():
            own = [channel for channel in running if namespace_of(channel) == name]
            await self._restore(own, stream.epoch, stream.offset, listed=True)

    async def catch_up(self) -> None:
        """Take all that is stored now: however fast producers are, that has an end. BusError."""
        for stream in self._streams.values():
            await self._catch_up(stream)

    async def _catch_up(self, stream: _TaskStream) -> None:
        now = trio.current_time()
        state = await self._bus.stream_state(_any_channel(stream.namespace))
        if state.epoch != stream.epoch:
            stream.epoch, stream.offset = state.epoch, 0
            self._roster.restart(stream.namespace, state.epoch)
        while stream.offset < state.last:
            page = await self._bus.read_namespace(stream.namespace, stream.offset + 1)
            await self._take(stream, page)
            stream.offset = page.messages[-1].position.offset if page.messages else state.last
            self._lease.positions[stream.namespace] = ReadPosition(stream.epoch, stream.offset)
        stream.caught_up = now

    async def _take(self, stream: _TaskStream, page: Page) -> None:
        """Fold a page, and record what must not be lost once the lease's position is beyond it."""
        channels = dict.fromkeys(stored.channel for stored in page.messages)
        unknown = [channel for channel in channels if channel not in self._roster and _is_channel(channel)]
        if unknown:
            before = page.messages[0].position.offset - 1
            await self._restore(unknown, stream.epoch, before, listed=False)
        slices = Slices()
        for stored in page.messages:
            self._roster.take(stored, self._read_message)
            await slices.breathe()
        await self._records.write(self._roster.of(channels))

    async def _restore(self, channels: Iterable[str], epoch: str, until: int, *, listed: bool) -> None:
        """Add tasks to the roster as they were at an offset."""

        async def restore_one(channel: str) -> None:
            fold = TaskFold(channel, self._on_refused)
            await restore(self._bus, self._read_message, fold, epoch, until)
            self._roster.add(fold, epoch, listed=listed)

        await for_each(restore_one, list(channels))


def _any_channel(namespace: str) -> str:
    """Stands for a channel of a namespace where only its stream matters."""
    return f"{namespace}:"


def _is_channel(name: str) -> bool:
    """Any client of NATS may publish on a subject that belongs to no channel, even with a wildcard in it."""
    try:
        return check_channel(name) == name
    except MessageError:
        return False
