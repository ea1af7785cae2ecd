"""The task monitor: all tasks of the cluster are divided into shares, each worker follows those of its own, and stores
the events that follow from time alone (engine/tasks/timers.py).

A worker holds a share by its lease, which belongs to the worker that rendezvous hashing names among the live ones
(holdings.py). It takes the messages of its shares (reader.py) into the roster, which queues what has to be done, and
the parts of the monitor do it, each at its own pace. A worker may be killed or stopped at any point, and two holders of
a share for a moment do no harm: a record knows its offset, so reading a message again changes nothing; a timer event is
stored only after the message that it was decided upon; and every write says what it replaces.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

import trio

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.bus.stored import MULTI_LAST
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.cluster.store_clock import StoreClock
from fanline.engine.counters import Counters
from fanline.engine.faults import RESTART_SECONDS, Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import OnRefused
from fanline.engine.tasks.monitor.deliverer import Deliverer
from fanline.engine.tasks.monitor.holdings import Holdings
from fanline.engine.tasks.monitor.monitored_task import ON_ITS_WAY, MonitoredTask
from fanline.engine.tasks.monitor.reader import NamespaceReader, StreamWentBack
from fanline.engine.tasks.monitor.roster import OnEnded, ReadMessage, TaskRoster
from fanline.engine.tasks.monitor.stored.fresh_table import TableAnswerer
from fanline.engine.tasks.monitor.stored.records import TaskRecords
from fanline.engine.tasks.monitor.stored.restorer import Restorer, newest_offsets
from fanline.engine.tasks.monitor.stored.table import TABLE_CHANNEL, TABLE_EVENT, TablePublisher
from fanline.engine.tasks.monitor.task_shares import SLICE_SECONDS, DueEvent
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.nats.names import engine_store_id

MESSAGE_ID_PREFIX = "keeper-"
"""Of the monitor's own messages."""
TURN_SECONDS = 0.1
_log = logging.getLogger("fanline.monitor")


class TaskMonitor:
    """One worker's part of it. `clock_ms`: Unix milliseconds for viewers; timers go by the clock of the store."""

    def __init__(
        self,
        bus: Bus,
        members: Members,
        namespaces: Namespaces,
        read_message: ReadMessage,
        on_refused: OnRefused,
        counters: Counters,
        faults: Faults,
        clock_ms: Callable[[], int] = unix_ms,
        on_ended: OnEnded = lambda channel, snapshot: None,
    ) -> None:
        self._bus = bus
        self._clock_ms = clock_ms
        self._faults = faults
        clock = StoreClock()
        self._roster = roster = TaskRoster(namespaces, read_message, on_refused, clock, counters, faults, on_ended)
        parts = (roster.shares, roster.take, lambda: roster.is_full, roster.begin_epoch)
        self._readers = {name: NamespaceReader(bus, name, *parts) for name in namespaces.tasks()}
        self._holdings = Holdings(bus, members, roster, self._readers, clock, faults, self._bus_failed)
        self._restorer = Restorer(bus, roster, self._bus_failed)
        self._deliverer = Deliverer(bus, roster, self._store)
        self._records = TaskRecords(bus, namespaces, roster, self._bus_failed)
        self._table = TablePublisher(bus, members.id, members.live, self._publish_table)
        self._answerer = TableAnswerer(
            bus, self.catch_up, partial(self._table.update_now, roster), lambda: roster.shares[0] is not None
        )
        self._failing = False

    def bus_is_back(self) -> None:
        """To be called after an outage: beats and messages may have been lost."""
        self._roster.grant_grace()
        self._table.bus_is_back()
        for reader in self._readers.values():
            reader.bus_is_back()

    async def catch_up(self) -> None:
        """Take what is stored by now of this worker's shares. BusError."""
        for reader in self._readers.values():
            await reader.catch_up()
        waiting = dict(self._roster.to_restore)
        while waiting.keys() & self._roster.to_restore.keys():  # noqa: ASYNC110  # it is rare, and short
            await trio.sleep(TURN_SECONDS / 10)

    def unrecorded(self) -> Iterator[MonitoredTask]:
        """The running tasks of this worker's shares of which there is no record yet."""
        return (task for task in self._roster.unrecorded() if task.running and not task.record_revision)

    def known_shares(self) -> list[int]:
        """This worker's shares whose tasks it knows. While a share is handed over, no worker does."""
        return [share.number for share in self._roster.held() if share.loaded]

    async def run(self) -> None:
        """Monitor forever. A part that fails begins again; if it holds the shares, they are given back first. If a
        stream went back to an older copy, all shares are given back, and everything begins again.
        """
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "the shares of the tasks": self._holdings.run,
            "the restoring of tasks": self._restorer.run,
            "the task records": self._records.run,
            "what is stored for producers": self._deliverer.run,
            "the timers of tasks": self._watch,
            "the table of tasks": self._show,
            "the table for those who come": self._answerer.run,
        }
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    for name, run in parts.items():
                        nursery.start_soon(self._faults.keep, name, run)
                    for namespace, reader in self._readers.items():
                        nursery.start_soon(self._read, namespace, reader)
            except* StreamWentBack as gone:
                text = "the stream of the namespace %s went back to an older copy: its tasks are read again"
                _log.warning(text, gone.exceptions[0])
            await trio.sleep(RESTART_SECONDS)

    def _bus_failed(self, error: BusError) -> None:
        _log.debug("the bus: %s", error)
        if not isinstance(error, ConflictError):
            self._roster.grant_grace()

    # --- the parts that run side by side --------------------------------------------------------------------------

    async def _read(self, namespace: str, reader: NamespaceReader) -> None:
        while True:
            try:
                await reader.run()
            except BusError as error:
                self._bus_failed(error)
                reader.doubt()
            except StreamWentBack:
                raise
            except Exception:  # noqa: BLE001  # it must end neither this worker nor, one by one, all others
                self._faults.report(
                    f"the reader of {namespace}", f"failed; it begins again after {RESTART_SECONDS:g} s"
                )
                await trio.sleep(RESTART_SECONDS)
            await trio.sleep(TURN_SECONDS)

    async def _show(self) -> None:
        while True:
            try:
                await self._table.update(self._roster)
            except BusError as error:
                self._bus_failed(error)
            await trio.sleep(2 * TURN_SECONDS)

    async def _watch(self) -> None:
        """Look at the tasks that are due, and store their timer events."""
        while True:
            slices = Slices(SLICE_SECONDS)
            for task in self._roster.agenda.due(trio.current_time()):
                self._look(task)
                await slices.breathe()
            for _ in range(0, len(self._roster.to_tell), MULTI_LAST):
                told = self._roster.to_tell[:MULTI_LAST]
                del self._roster.to_tell[:MULTI_LAST]  # the others stay there in case of a fault
                await self._tell(told)
            await trio.sleep(TURN_SECONDS)

    def _look(self, task: MonitoredTask) -> None:
        with self._roster.edge(task):
            self._roster.look(task, trio.current_time())

    # --- timer events ---------------------------------------------------------------------------------------------

    async def _tell(self, told: list[DueEvent]) -> None:
        try:
            newest = await newest_offsets(self._bus, [decision.task.channel for decision in told])
            await for_each(partial(self._store_timer_event, newest), told)
            self._failing = False
        except BusError as error:
            if not (self._failing or isinstance(error, ConflictError)):
                _log.warning("stalls and deadlines of tasks are not noticed for now: %s", error)
                self._failing = True
            self._bus_failed(error)
        finally:
            for decision in told:
                if decision.task.awaited == ON_ITS_WAY:
                    decision.task.awaited = 0
                self._look(decision.task)

    async def _store_timer_event(self, newest: Mapping[str, int], decision: DueEvent) -> None:
        with self._roster.edge(decision.task, f"{decision.event.event} cannot be stored"):
            await self._store_if_newest(decision, newest.get(decision.task.channel, 0))

    async def _store_if_newest(self, decision: DueEvent, newest: int) -> None:
        """Store an event if nothing was said since it was decided upon: then it is decided again."""
        task, due, offset = decision
        share, reader = self._roster.home(task), self._readers[namespace_of(task.channel)]
        if share is None or not share.ready or task.offset != offset:
            return
        if newest > reader.taken:
            reader.doubt()
            return
        if newest > offset and not task.is_warm:
            # Its entry does not show what was said last. One that had expired and came back may even show a task that
            # has ended since: the stream decides.
            self._roster.restore_soon(task)
            return
        share.lease.check()
        attempt = task.snapshot.attempt
        # Two holders that decide the same after the same message give the event the same id: it is stored once.
        name = f"{due.event}-{attempt}-{newest}"
        data = {**due.data, "attempt": attempt}
        try:
            task.awaited = await self._store(task.channel, due.event, data, name, newest)
        except ConflictError:
            reader.doubt()

    async def _publish_table(self, data: dict[str, Any]) -> None:
        """Store the table behind the newest one; ConflictError if another worker has stored one meanwhile."""
        share = self._roster.shares[0]
        if share is not None:
            last = (await self._bus.last_offsets([TABLE_CHANNEL])).get(TABLE_CHANNEL, 0)
            share.lease.check()
            await self._store(TABLE_CHANNEL, TABLE_EVENT, data, str(self._clock_ms()), last)

    async def _store(self, channel: str, event: str, data: object, name: str, last: int | None = None) -> int:
        """Store a message of the monitor's own; its offset. One of the same name is stored once. BusError."""
        message_id = f"{MESSAGE_ID_PREFIX}{name}"
        envelope = Envelope(MessageType.PUB, id=message_id, event=event, data=data, time=self._clock_ms())
        store_id = engine_store_id(channel, message_id)
        stored = await self._bus.store(channel, encode_json(envelope), store_id, last, signed=True)
        return stored.offset
