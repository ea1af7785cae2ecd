"""What is stored of tasks, so that it outlives their monitor: their records, and a list of those that run."""

import logging
from collections.abc import Iterable
from contextlib import suppress

import msgspec
import trio

from fanline.engine.bus.interface import Bus, TooLargeError
from fanline.engine.bus.parallel import for_each
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.lease import Lease
from fanline.engine.tasks.monitored import REFRESH_SECONDS, MonitoredTask
from fanline.protocol.nats.names import Bucket, channel_key

_log = logging.getLogger("fanline.monitor")


class TaskRecords:
    """Written by the holder of the lease."""

    def __init__(self, bus: Bus, namespaces: Namespaces, lease: Lease) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._lease = lease

    async def write(self, tasks: Iterable[MonitoredTask]) -> None:
        """Store what is due: of a task that has ended, first how it ended, then that it no longer runs. BusError."""
        slices, now = Slices(), trio.current_time()
        unrecorded, unlisted = [], []
        for task in tasks:
            if record_due := task.is_record_due(now):
                unrecorded.append(task)
            if task.is_listing_due(record_due):
                unlisted.append(task)
            await slices.breathe()
        await for_each(self._record, unrecorded)
        await for_each(self._list, unlisted)

    async def _record(self, task: MonitoredTask) -> None:
        if not task.without_output:
            try:
                await self._put(Bucket.TASKS, task, task.fold.record(task.epoch))
            except TooLargeError as error:
                task.without_output = True
                _log.warning("the record of %s goes without its output from now on: %s", task.fold.channel, error)
        if task.without_output:
            with suppress(TooLargeError):
                await self._put(Bucket.TASKS, task, task.fold.record(task.epoch, 0))
        task.recorded(trio.current_time())

    async def _list(self, task: MonitoredTask) -> None:
        """Write the entry of a task that runs; empty that of one that does not."""
        if task.running:
            await self._put(Bucket.RUNNING, task, msgspec.json.encode(task.fold.snapshot.heartbeat))
        else:
            await self._put(Bucket.RUNNING, task, b"", 1)
        task.listed = task.running

    async def _put(self, bucket: Bucket, task: MonitoredTask, value: bytes, seconds: float | None = None) -> None:
        self._lease.check()
        channel = task.fold.channel
        await self._bus.kv_put(bucket, channel_key(channel), value, seconds or self._seconds(task))

    def _seconds(self, task: MonitoredTask) -> float:
        """How long an entry is kept; that of a running task at least until it is written again."""
        retention = self._namespaces.of(task.fold.channel).retention
        return max(retention, 2 * REFRESH_SECONDS) if task.running else retention
