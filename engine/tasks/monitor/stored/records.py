"""What is stored of tasks, so that it outlives this worker: their records, and entries for those that run.

Writes are spread: URGENT_RATE a second for changes that the next holder of a share would miss, and RECORD_RATE for
records that are merely old. A write says which revision it replaces. So a worker that was asleep while another one took
its share over, and that goes on in the middle of a write, overwrites nothing that it has not read.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice

import msgspec
import trio

from fanline.engine.bus.errors import BusError, ConflictError, TooLargeError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import ALL_LINES, TaskRecord
from fanline.engine.tasks.monitor.monitored_task import REFRESH_SECONDS, MonitoredTask
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.monitor.stored.entry import encode_entry, entry_key
from fanline.engine.tasks.output_tail import OutputTail
from fanline.protocol.nats.names import Bucket, channel_key

URGENT_RATE = 1000
RECORD_RATE = 200
TICK_SECONDS = 0.05
_GONE_SECONDS = 1  # for which an empty entry is kept
_log = logging.getLogger("fanline.monitor")


class TaskRecords:
    """Empties the roster's queues `to_save` and `to_record`."""

    def __init__(
        self, bus: Bus, namespaces: Namespaces, roster: TaskRoster, bus_failed: Callable[[BusError], None]
    ) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._roster = roster
        self._bus_failed = bus_failed

    async def run(self) -> None:
        """Write forever, a few at a time."""
        while True:
            try:
                await self._write_some(self._roster.to_save, round(URGENT_RATE * TICK_SECONDS), self._save)
                if self._roster.is_at_rest:
                    await self._write_some(self._roster.to_record, round(RECORD_RATE * TICK_SECONDS), self._refresh)
            except BusError as error:
                self._bus_failed(error)
            idle = not (self._roster.to_save or self._roster.to_record)
            await trio.sleep(2 * TICK_SECONDS if idle else TICK_SECONDS)

    async def _write_some(
        self,
        queue: dict[MonitoredTask, None],
        count: int,
        write: Callable[[Share, MonitoredTask], Awaitable[None]],
    ) -> None:
        """Write for the tasks that have waited longest. Those that fail are tried again in their turn."""

        async def write_one(task: MonitoredTask) -> None:
            queue.pop(task, None)  # one that is not begun, since another one has failed, stays
            share = self._roster.home(task)
            if share is None or task.pending is not None:
                return
            self._roster.writing.add(task)
            try:
                with self._roster.edge(task, "it cannot be stored"):
                    await write(share, task)
            except BusError:
                if share.held:
                    queue[task] = None
                raise
            finally:
                self._roster.writing.discard(task)

        await for_each(write_one, list(islice(queue, count)))

    # --- what is written of one task ------------------------------------------------------------------------------

    async def _save(self, share: Share, task: MonitoredTask) -> None:
        """Of a task that has ended, first how it ended, then that it no longer runs."""
        now = trio.current_time()
        if task.running and not task.withdrawn:
            if not task.is_stranger:
                await self._write_entry(share, task)
        else:
            if task.is_record_due(now):
                await self._record(share, task)
            await self._empty_entry(share, task)
        if share.held and not task.gone:
            self._roster.settled(share, task)

    async def _refresh(self, share: Share, task: MonitoredTask) -> None:
        """The record of a running task; if it has not changed, its entry as well, since both expire."""
        now = trio.current_time()
        if not task.is_warm or not task.is_record_due(now):
            return
        expires = task.is_refresh_due(now)
        await self._record(share, task)
        if task.running and (expires or not task.listed):
            await self._write_entry(share, task)
        if share.held and not task.gone:
            self._roster.settled(share, task)

    async def _write_entry(self, share: Share, task: MonitoredTask) -> None:
        offset, value = task.offset, encode_entry(task)
        await self._put_entry(share, task, value, self._seconds(task))
        self._roster.saved(share, task, offset, listed=True)

    async def _empty_entry(self, share: Share, task: MonitoredTask) -> None:
        offset = task.offset
        if task.listed:
            await self._put_entry(share, task, b"", _GONE_SECONDS)
            task.entry_revision = 0
        self._roster.saved(share, task, offset, listed=False)

    async def _put_entry(self, share: Share, task: MonitoredTask, value: bytes, seconds: float) -> None:
        share.lease.check()
        key = entry_key(task.channel)
        try:
            task.entry_revision = await self._bus.kv_put(Bucket.RUNNING, key, value, seconds, task.entry_revision)
        except ConflictError:
            # Our own write that was not confirmed, or that of a holder that was asleep: the lease says who is right.
            found = await self._bus.kv_get(Bucket.RUNNING, key)
            task.entry_revision = 0 if found is None else found.revision
            raise

    # --- records --------------------------------------------------------------------------------------------------

    async def _record(self, share: Share, task: MonitoredTask) -> None:
        if not task.is_warm:
            return
        output = await self._stored_output(task)
        fresh = task.output
        task.output = None
        if fresh is not None:
            output.extend(fresh.newest(ALL_LINES))
        record = TaskRecord(task.snapshot, task.estimate, output, task.epoch.name, task.folded)
        try:
            await self._put_record(share, task, record)
        except BaseException:
            task.output = _joined(fresh, task.output)  # to be stored another time, with what came meanwhile
            raise
        task.output_recorded = not (output.empty or task.without_output)
        task.recorded(record.offset, (record.snapshot.state, record.snapshot.attempt), trio.current_time())

    async def _stored_output(self, task: MonitoredTask) -> OutputTail:
        """The output that the record holds, which is nowhere else."""
        if task.output_recorded:
            found = await self._bus.kv_get(Bucket.TASKS, channel_key(task.channel))
            if found is not None and found.value:
                try:
                    return OutputTail(msgspec.json.decode(found.value)["output"])
                except (msgspec.MsgspecError, LookupError, TypeError) as error:
                    _log.warning("the output in the record of %s cannot be read: %s", task.channel, error)
        return OutputTail()

    async def _put_record(self, share: Share, task: MonitoredTask, record: TaskRecord) -> None:
        if not task.without_output:
            try:
                await self._put(share, task, record.encode())
            except TooLargeError as error:
                task.without_output = True
                _log.warning("the record of %s goes without its output from now on: %s", task.channel, error)
        if task.without_output:
            with suppress(TooLargeError):
                await self._put(share, task, record.encode(0))

    async def _put(self, share: Share, task: MonitoredTask, value: bytes) -> None:
        share.lease.check()
        key, seconds = channel_key(task.channel), self._seconds(task)
        try:
            task.record_revision = await self._bus.kv_put(Bucket.TASKS, key, value, seconds, task.record_revision)
        except ConflictError:
            found = await self._bus.kv_get(Bucket.TASKS, key)
            task.record_revision = 0 if found is None else found.revision
            raise

    def _seconds(self, task: MonitoredTask) -> float:
        """How long an entry is kept; that of a running task at least until it is written again."""
        retention = self._namespaces.of(task.channel).retention
        return max(retention, 2 * REFRESH_SECONDS) if task.running else retention


def _joined(older: OutputTail | None, newer: OutputTail | None) -> OutputTail | None:
    if older is not None and newer is not None:
        older.extend(newer.newest(ALL_LINES))
    return newer if older is None else older
