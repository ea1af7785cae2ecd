"""What is written down of tasks, so that it outlives their keeper: checkpoints, and which of them run."""

import logging
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import trio

from fanline.engine.bus.interface import Bus, BusError, TooLargeError
from fanline.engine.bus.parallel import for_each
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.lease import Lease
from fanline.engine.tasks.monitored import REFRESH_SECONDS, MonitoredTask
from fanline.protocol.nats.names import Bucket, channel_key

_log = logging.getLogger("fanline.keeper")


class TaskRecords:
    """Written by whoever has the lease."""

    def __init__(self, bus: Bus, namespaces: Namespaces, lease: Lease) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._lease = lease

    async def write(self, watches: Sequence[MonitoredTask]) -> None:
        """Write down what is due: of a task that ends first how it ended, then that it no longer runs. BusError."""
        slices, now = Slices(), trio.current_time()
        due, changed = [], []
        for watch in watches:
            if is_due := watch.is_due(now):
                due.append(watch)
            if watch.running != watch.marked or (watch.running and is_due):  # a mark is forgotten after some time
                changed.append(watch)
            await slices.breathe()
        await for_each(self._checkpoint, due)
        await for_each(self._mark, changed)

    async def _checkpoint(self, watch: MonitoredTask) -> None:
        if not watch.too_large:
            try:
                await self._set(Bucket.TASKS, watch, watch.log.record(watch.epoch))
            except TooLargeError as error:
                watch.too_large = True
                _log.warning("checkpoints of %s go without its output: %s", watch.log.channel, error)
        if watch.too_large:
            with suppress(TooLargeError):
                await self._set(Bucket.TASKS, watch, watch.log.record(watch.epoch, 0))
        watch.written(trio.current_time())

    async def _mark(self, watch: MonitoredTask) -> None:
        if watch.running:
            await self._set(Bucket.RUNNING, watch, msgspec.json.encode(watch.log.snapshot.heartbeat))
        else:
            await self._set(Bucket.RUNNING, watch, b"", 1)
        watch.marked = watch.running

    async def _set(self, bucket: Bucket, watch: MonitoredTask, value: bytes, seconds: float | None = None) -> None:
        if not self._lease.valid:  # who was asleep must not write over what another keeper has written since
            raise BusError("somebody else may keep by now")
        channel = watch.log.channel
        await self._bus.kv_put(bucket, channel_key(channel), value, seconds or self._seconds(watch))

    def _seconds(self, watch: MonitoredTask) -> float:
        """How long it is kept; what runs, at least until it is written anew."""
        retention = self._namespaces.of(watch.log.channel).retention
        return max(retention, 2 * REFRESH_SECONDS) if watch.running else retention
