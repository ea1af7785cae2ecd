"""The keeper: one worker of the cluster follows all tasks, and tells what nobody else would (engine/tasks/timers.py).

It reads the streams of the task namespaces in order, folds every task, and writes down what has to outlive it:
checkpoints, which tasks run, the table of them, and in its lease how far it was. The lease moves on only after the
checkpoints, so whoever has it next begins with a message too many rather than one too few, and nothing is done twice:
a checkpoint knows its offset, and a verdict stored again has the same id. So it may be killed at any point, and two of
them for a moment do no harm.
"""

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from fanline.engine.bus.interface import Bus, BusError, Page, Stored, TooLargeError
from fanline.engine.bus.parallel import for_each
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import OnRefused, TaskFold, restore
from fanline.engine.tasks.lease import RENEW_SECONDS, Lease, MonitorPosition
from fanline.engine.tasks.monitored import MonitoredTask
from fanline.engine.tasks.records import TaskRecords
from fanline.engine.tasks.table import MAX_ROWS, TABLE_CHANNEL, TABLE_EVENT, table
from fanline.engine.tasks.timers import TimerEvent
from fanline.protocol.channels import check_channel, namespace_of
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket, channel_of_key, deduplication_id

TURN_SECONDS = 0.2
IDLE_TURN_SECONDS = 0.5
"""While there is no task: a new one is found so much later."""
_TRY_SECONDS = 0.5  # between two looks at a lease that somebody else has
_RELEASE_SECONDS = 0.5
_TABLE_SECONDS = 1.0
_TABLE_REFRESH = 3600.0  # seconds after which even an unchanged table is stored anew, before it is too old to be kept
_GRACE = 3.0
"""Seconds after an outage in which nobody is missed: producers take their time to come back."""
_log = logging.getLogger("fanline.keeper")

ReadMessage = Callable[[Stored], Envelope | None]
"""A stored message as it goes to clients; None if it is none: MessageReader.read_stored."""


class _Reader:
    """How far the stream of one namespace was taken."""

    def __init__(self, namespace: str, position: MonitorPosition | None, epoch: str) -> None:
        self.namespace = namespace
        self.epoch = epoch
        self.offset = position.offset if position is not None and position.epoch == epoch else 0
        self.caught_up = -math.inf
        """All that was stored before this moment, by Trio's clock, was taken."""


class TaskMonitor:
    """Every worker has one, and one of them has the lease. `clock_ms` gives Unix milliseconds."""

    def __init__(
        self,
        bus: Bus,
        namespaces: Namespaces,
        read_message: ReadMessage,
        on_refused: OnRefused,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._read_message = read_message
        self._on_refused = on_refused
        self._clock_ms = clock_ms
        self._lease = Lease(bus, "keeper")
        self._records = TaskRecords(bus, namespaces, self._lease)
        self._readers: dict[str, _Reader] = {}
        self._watches: dict[str, MonitoredTask] = {}
        self._outage = -math.inf  # when the bus was last away, by Trio's clock
        self._table_stale = True
        self._table_shown = -math.inf

    async def run(self) -> None:
        """Keep, whenever nobody else does, for ever."""
        while True:
            try:
                if await self._lease.take():
                    await self._hold()
            except BusError as error:
                self._bus_failed(error)
            await trio.sleep(_TRY_SECONDS)

    def bus_is_back(self) -> None:
        """Beats and messages may have been lost: everybody has fresh grace."""
        self._outage = trio.current_time()
        for watch in self._watches.values():
            watch.spare(self._outage + _GRACE)

    def _bus_failed(self, error: BusError) -> None:
        _log.debug("the bus: %s", error)
        self.bus_is_back()

    # --- the lease ----------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        """Keep until the lease is lost."""
        self._bus.hear_beats(self._beat)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                await self._renew()
                nursery.cancel_scope.cancel()
        finally:
            self._bus.hear_beats(None)
            self._readers.clear()
            self._watches.clear()
            with trio.move_on_after(_RELEASE_SECONDS, shield=True), suppress(BusError):
                await self._lease.release()

    async def _renew(self) -> None:
        held = True
        while held:
            await trio.sleep(RENEW_SECONDS)
            try:
                held = await self._lease.renew()
            except BusError as error:
                self._bus_failed(error)

    async def _keep(self) -> None:
        loaded = failing = False
        while True:
            try:
                if not loaded:
                    await self._load()
                    loaded = True
                await self._turn()
                failing = False
            except BusError as error:
                if not failing:
                    _log.warning("stalls and deadlines of tasks are not told for now: %s", error)
                failing = True
                self._bus_failed(error)
            await trio.sleep(TURN_SECONDS if self._watches else IDLE_TURN_SECONDS)

    def _beat(self, channel: str) -> None:
        watch = self._watches.get(channel)
        if watch is not None:
            watch.beat(trio.current_time())

    # --- reading ------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """The tasks that ran, up to where the last keeper was."""
        for name in self._namespaces.tasks():
            state = await self._bus.stream_state(f"{name}:")
            self._readers[name] = _Reader(name, self._lease.positions.get(name), state.epoch)
        running = [channel_of_key(key) for key in await self._bus.kv_entries(Bucket.RUNNING)]
        for name, reader in self._readers.items():
            channels = [channel for channel in running if channel.startswith(f"{name}:")]
            await for_each(partial(self._restore, reader, reader.offset, True), channels)
        self._table_stale = True

    async def _restore(self, reader: _Reader, until: int, marked: bool, channel: str) -> None:
        log = TaskFold(channel, self._on_refused)
        await restore(self._bus, self._read, log, reader.epoch, until)
        now = trio.current_time()
        self._watches[channel] = MonitoredTask(log, reader.epoch, now, max(now, self._outage + _GRACE), marked=marked)

    def _read(self, stored: Stored) -> Envelope | None:
        return self._read_message(stored)

    async def _turn(self) -> None:
        for reader in self._readers.values():
            await self._catch_up(reader)
        await self._records.write(list(self._watches.values()))
        await self._forget_ended()
        await self._tell()
        await self._show_table()

    async def _catch_up(self, reader: _Reader) -> None:
        """Take all that is stored now: however fast producers are, that has an end."""
        now = trio.current_time()
        state = await self._bus.stream_state(f"{reader.namespace}:")
        if state.epoch != reader.epoch:
            self._begin_anew(reader, state.epoch)
        while reader.offset < state.last:
            page = await self._bus.read_namespace(reader.namespace, reader.offset + 1)
            await self._take(reader, page)
            reader.offset = page.messages[-1].position.offset if page.messages else state.last
            self._lease.positions[reader.namespace] = MonitorPosition(reader.epoch, reader.offset)
        reader.caught_up = now

    def _begin_anew(self, reader: _Reader, epoch: str) -> None:
        reader.epoch, reader.offset = epoch, 0
        for channel, watch in self._watches.items():
            if channel.startswith(f"{reader.namespace}:"):
                watch.begin_anew(epoch)

    async def _take(self, reader: _Reader, page: Page) -> None:
        """Fold a page, and write down what must not be lost when the lease moves on beyond it."""
        channels = dict.fromkeys(stored.channel for stored in page.messages)
        unknown = [channel for channel in channels if channel not in self._watches and _is_channel(channel)]
        if unknown:
            before = page.messages[0].position.offset - 1
            await for_each(partial(self._restore, reader, before, False), unknown)
        slices = Slices()
        for stored in page.messages:
            self._fold(stored)
            await slices.breathe()
        await self._records.write([self._watches[channel] for channel in channels if channel in self._watches])

    def _fold(self, stored: Stored) -> None:
        watch = self._watches.get(stored.channel)
        if watch is None:
            return
        self._table_stale = True
        try:
            watch.take(self._read(stored), stored.position.offset, trio.current_time())
        except Exception:  # noqa: BLE001  # our own fault, which would meet every keeper to come
            _log.exception("message %d of %s was left out", stored.position.offset, stored.channel)

    async def _forget_ended(self) -> None:
        slices = Slices()
        for channel, watch in list(self._watches.items()):
            if watch.is_over(trio.current_time(), self._namespaces.of(channel).retention):
                del self._watches[channel]
                self._table_stale = self._table_stale or watch.running
            await slices.breathe()

    # --- telling ------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Store what is to be told of each task."""
        slices, now_ms = Slices(), self._clock_ms()
        told: list[tuple[MonitoredTask, TimerEvent]] = []
        for watch in self._watches.values():
            verdict = watch.verdict(self._readers[namespace_of(watch.log.channel)].caught_up, now_ms)
            if verdict is not None:
                told.append((watch, verdict))
            await slices.breathe()
        await for_each(self._store, told)

    async def _store(self, told: tuple[MonitoredTask, TimerEvent]) -> None:
        watch, (event, data) = told
        channel, attempt = watch.log.channel, watch.log.snapshot.attempt
        # Two keepers that have come to the same verdict after the same message give it the same id: it is stored once.
        name = f"keeper-{event}-{attempt}-{watch.log.offset}"
        watch.awaited = await self._publish(channel, event, {**data, "attempt": attempt}, name)

    async def _show_table(self) -> None:
        now = trio.current_time()
        since = now - self._table_shown
        if since < (_TABLE_SECONDS if self._table_stale else _TABLE_REFRESH):
            return
        self._table_shown, self._table_stale = now, False
        logs = [watch.log for watch in self._watches.values() if watch.running]
        rows = MAX_ROWS
        try:
            while not await self._fits(table(logs, rows)):
                rows //= 2
        except BusError:
            self._table_stale = True
            raise

    async def _fits(self, rows: dict[str, Any]) -> bool:
        """Store a table, unless it is too large."""
        try:
            await self._publish(TABLE_CHANNEL, TABLE_EVENT, rows, f"keeper-{self._clock_ms()}")
        except TooLargeError:
            return False
        return True

    async def _publish(self, channel: str, event: str, data: object, name: str) -> int:
        if not self._lease.valid:
            raise BusError("somebody else may keep by now")
        envelope = Envelope(MessageType.PUB, id=name, event=event, data=data, time=self._clock_ms())
        return await self._bus.store(channel, encode_json(envelope), deduplication_id(channel, name))


def _is_channel(name: str) -> bool:
    """Anybody may publish on a subject that is none of a channel, with a wildcard in it even."""
    try:
        return check_channel(name) == name
    except MessageError:
        return False
