"""Brings tasks back from their records: those whose first message has come, and those that were cold. Many at once."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.bus.stored import MULTI_LAST, KvEntry
from fanline.engine.clock import unix_ms_of
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import read_record
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.engine.tasks.monitor.task_shares import SLICE_SECONDS
from fanline.protocol.channels import namespace_of
from fanline.protocol.nats.names import Bucket, channel_key
from fanline.protocol.tasks.states import TaskState

_PAUSE_SECONDS = 0.05
"""So that tasks that come one after the other are asked for together."""
_RETRY_SECONDS = 0.5
_WARMED_AT_ONCE = 50


class Restorer:
    """Empties the roster's queue `to_restore`."""

    def __init__(self, bus: Bus, roster: TaskRoster, bus_failed: Callable[[BusError], None]) -> None:
        self._bus = bus
        self._roster = roster
        self._bus_failed = bus_failed

    async def run(self) -> None:
        """Restore tasks forever."""
        while True:
            try:
                while self._roster.to_restore:
                    await self._restore(list(islice(self._roster.to_restore, MULTI_LAST)))
                if self._roster.is_at_rest:
                    self._begin_warming()
                await trio.sleep(_PAUSE_SECONDS)
            except BusError as error:
                self._bus_failed(error)
                await trio.sleep(_RETRY_SECONDS)

    async def _restore(self, tasks: list[MonitoredTask]) -> None:
        records = await self._bus.kv_get_many(Bucket.TASKS, [channel_key(task.channel) for task in tasks])
        newest = await newest_offsets(self._bus, [task.channel for task in tasks if not task.pending])
        slices = Slices(SLICE_SECONDS)
        entries = {task: (task.snapshot, task.deadlines) for task in tasks if task.listed}
        for task in tasks:
            if not task.is_warm:
                with self._roster.edge(task):
                    self._warm(task, records.get(channel_key(task.channel)))
            await slices.breathe()
        tasks = [task for task in tasks if task.is_warm]
        await for_each(self._read_on, [(task, until) for task in tasks if (until := _missing(task, newest))])
        for task in tasks:
            self._roster.to_restore.pop(task, None)
            if task in entries and task.snapshot.state is TaskState.UNKNOWN:
                task.trust_entry(*entries[task])
            share = self._roster.home(task)
            if share is not None and task.is_warm:
                with self._roster.edge(task):
                    self._roster.restored(share, task)
            await slices.breathe()

    def _begin_warming(self) -> None:
        """Of the tasks that were taken over cold, restore a few with the next ones."""
        waiting = self._roster.to_warm
        for _ in range(min(_WARMED_AT_ONCE, len(waiting))):
            task = waiting.popleft()
            if self._roster.home(task) is not None:
                self._roster.restore_soon(task)

    def _warm(self, task: MonitoredTask, found: KvEntry | None) -> None:
        """Have a task go on from its record, or else from nothing."""
        record = None
        if found is not None and found.value:
            record = read_record(task.channel, found.value, task.epoch)
        task.record_revision = 0 if found is None else found.revision
        share, was_stranger = self._roster.home(task), task.is_stranger
        if found is None or record is None:
            task.warm_without_record()
        else:
            task.warm(record, unix_ms_of(found.time))
        if share is not None:
            share.strangers += task.is_stranger - was_stranger  # a record says that it was announced

    async def _read_on(self, missing: tuple[MonitoredTask, int]) -> None:
        """Fold what the stream has of a task after its record, up to an offset."""
        task, until = missing
        share = self._roster.home(task)
        slices, more = Slices(SLICE_SECONDS), 1
        with self._roster.edge(task):
            while share is not None and more and task.folded < until:
                page = await self._bus.read(task.channel, task.folded + 1)
                for stored in page.messages:
                    if stored.position.offset <= until:
                        self._roster.fold(share, task, stored)
                    await slices.breathe()
                more = page.more if page.messages else 0
            task.folded = max(task.folded, until)


def _missing(task: MonitoredTask, newest: Mapping[str, int]) -> int:
    """Up to where the stream has messages of a task that are neither folded nor waiting; 0 if it has none."""
    if not task.pending:
        until = newest.get(task.channel, 0)
        return until if until > task.folded else 0
    first = task.pending[0].position
    return first.offset - 1 if task.folded < min(first.previous, first.offset - 1) else 0


async def newest_offsets(bus: Bus, channels: Sequence[str]) -> dict[str, int]:
    """Channel -> offset of its newest message, whatever namespaces they belong to; MULTI_LAST at most. BusError."""
    newest: dict[str, int] = {}
    for namespace in {namespace_of(channel) for channel in channels}:
        newest |= await bus.last_offsets([channel for channel in channels if namespace_of(channel) == namespace])
    return newest
