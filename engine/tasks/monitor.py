"""The task monitor: one worker of the cluster follows all tasks, and stores the events that follow from time alone
(engine/tasks/timers.py).

In each turn it reads the streams of the task namespaces, folding every task, records what has to outlive it, stores the
timer events that are due, and publishes the table of running tasks. It may be killed at any point, and two monitors for
a moment do no harm: a record knows its offset, so reading a message again changes nothing, and a timer event that is
stored again has the same id.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from fanline.engine.bus.interface import Bus, BusError
from fanline.engine.bus.parallel import for_each
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import OnRefused
from fanline.engine.tasks.lease import RENEW_SECONDS, Lease
from fanline.engine.tasks.monitored import MonitoredTask
from fanline.engine.tasks.reader import StreamReader
from fanline.engine.tasks.records import TaskRecords
from fanline.engine.tasks.roster import ReadMessage, TaskRoster
from fanline.engine.tasks.table import TABLE_CHANNEL, TABLE_EVENT, TablePublisher
from fanline.engine.tasks.timers import TimerEvent
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.nats.names import deduplication_id

LEASE_KEY = "keeper"
MESSAGE_ID_PREFIX = "keeper-"
"""Both keep the monitor's former name: while workers of two versions run side by side, another key would give each
version a monitor of its own, and another prefix would let both store the same timer event.
"""

TURN_SECONDS = 0.2
IDLE_TURN_SECONDS = 0.5
"""While there is no task; a new one is found this much later."""
_TRY_SECONDS = 0.5  # between two attempts to take a lease that another worker holds
_RELEASE_SECONDS = 0.5
_log = logging.getLogger("fanline.monitor")


class TaskMonitor:
    """Every worker has one, and one of them holds the lease. `clock_ms` gives Unix milliseconds."""

    def __init__(
        self,
        bus: Bus,
        namespaces: Namespaces,
        read_message: ReadMessage,
        on_refused: OnRefused,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._bus = bus
        self._clock_ms = clock_ms
        self._lease = Lease(bus, LEASE_KEY)
        self._roster = TaskRoster(namespaces)
        self._records = TaskRecords(bus, namespaces, self._lease)
        self._reader = StreamReader(bus, namespaces, self._lease, self._roster, self._records, read_message, on_refused)
        self._table = TablePublisher(self._publish_table)

    def bus_is_back(self) -> None:
        """To be called after an outage: beats and messages may have been lost."""
        self._roster.grant_grace()

    # --- the lease ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever, be the monitor whenever no other worker is."""
        while True:
            try:
                if await self._lease.take():
                    await self._hold()
            except BusError as error:
                self._bus_failed(error)
            await trio.sleep(_TRY_SECONDS)

    async def _hold(self) -> None:
        """Monitor until the lease is lost."""
        self._bus.hear_beats(self._roster.beat)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._monitor)
                await self._renew()
                nursery.cancel_scope.cancel()
        finally:
            self._bus.hear_beats(None)
            self._roster.clear()
            with trio.move_on_after(_RELEASE_SECONDS, shield=True), suppress(BusError):
                await self._lease.release()

    async def _renew(self) -> None:
        """Renew the lease until another worker has it."""
        held = True
        while held:
            await trio.sleep(RENEW_SECONDS)
            try:
                held = await self._lease.renew()
            except BusError as error:
                self._bus_failed(error)

    def _bus_failed(self, error: BusError) -> None:
        _log.debug("the bus: %s", error)
        self._roster.grant_grace()

    # --- the turn -----------------------------------------------------------------------------------------------

    async def _monitor(self) -> None:
        """Load the tasks once, then turn for ever; a turn that fails is repeated."""
        loaded = failing = False
        while True:
            try:
                if not loaded:
                    await self._reader.load()
                    loaded = True
                await self._turn()
                failing = False
            except BusError as error:
                if not failing:
                    _log.warning("stalls and deadlines of tasks are not noticed for now: %s", error)
                failing = True
                self._bus_failed(error)
            await trio.sleep(TURN_SECONDS if self._roster else IDLE_TURN_SECONDS)

    async def _turn(self) -> None:
        await self._reader.catch_up()
        await self._records.write(self._roster)
        await self._roster.forget_finished()
        await self._store_timer_events()
        await self._table.update(self._roster)

    async def _store_timer_events(self) -> None:
        slices, now_ms = Slices(), self._clock_ms()
        due: list[tuple[MonitoredTask, TimerEvent]] = []
        for task in self._roster:
            event = task.timer_event(self._reader.caught_up(task.fold.channel), now_ms)
            if event is not None:
                due.append((task, event))
            await slices.breathe()
        await for_each(self._store_timer_event, due)

    async def _store_timer_event(self, due: tuple[MonitoredTask, TimerEvent]) -> None:
        task, (event, data) = due
        attempt = task.fold.snapshot.attempt
        # Two monitors that decide the same after the same message give the event the same id: it is stored once.
        name = f"{MESSAGE_ID_PREFIX}{event}-{attempt}-{task.fold.offset}"
        task.awaited = await self._store(task.fold.channel, event, {**data, "attempt": attempt}, name)

    async def _publish_table(self, data: dict[str, Any]) -> None:
        await self._store(TABLE_CHANNEL, TABLE_EVENT, data, f"{MESSAGE_ID_PREFIX}{self._clock_ms()}")

    async def _store(self, channel: str, event: str, data: object, name: str) -> int:
        """Store a message of the monitor's own under an id; its offset. BusError."""
        self._lease.check()
        envelope = Envelope(MessageType.PUB, id=name, event=event, data=data, time=self._clock_ms())
        return await self._bus.store(channel, encode_json(envelope), deduplication_id(channel, name))
