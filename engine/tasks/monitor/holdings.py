"""Which shares this worker holds: takes those that belong to it and are free, and gives back those that do not.

A share belongs to the worker that rendezvous hashing names among the live ones. A share whose holder is dead is taken
when its lease has expired; one that belongs to a worker that has just come is given back to it, with the position up
to which its streams were read, so that nothing is lost on the way.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.bus.stored import KvEntry
from fanline.engine.clock import unix_ms_of
from fanline.engine.cluster.members import Members
from fanline.engine.cluster.shares import SHARES, owner_of
from fanline.engine.cluster.store_clock import StoreClock
from fanline.engine.faults import RESTART_SECONDS, Faults
from fanline.engine.slices import Slices
from fanline.engine.tasks.monitor.lease import RENEW_SECONDS, Lease, LeaseBoard
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.reader import NamespaceReader
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.monitor.stored.entry import channel_of_entry, task_of_entry
from fanline.engine.tasks.monitor.stored.table import MAX_ROWS
from fanline.engine.tasks.monitor.task_shares import SLICE_SECONDS
from fanline.protocol.channels import namespace_of
from fanline.protocol.nats.names import Bucket

LEASE_PREFIX = "tasks"
LOOK_SECONDS = 0.4
STEADY_SECONDS = 2.0
"""A worker that has just come is given its shares when it has stayed for this long."""
_RELEASE_SECONDS = 0.5
_RETRY_SECONDS = 0.2
_A_LITTLE = 0.01  # seconds
_log = logging.getLogger("fanline.monitor")


def lease_key(share: int) -> str:
    """The key of a share's lease."""
    return f"{LEASE_PREFIX}.{share}"


class Holdings:
    """The shares of one worker. `run` until it is cancelled, which gives all of them back."""

    def __init__(
        self,
        bus: Bus,
        members: Members,
        roster: TaskRoster,
        readers: Mapping[str, NamespaceReader],
        clock: StoreClock,
        faults: Faults,
        bus_failed: Callable[[BusError], None],
    ) -> None:
        self._bus = bus
        self._members = members
        self._roster = roster
        self._readers = readers
        self._clock = clock
        self._faults = faults
        self._bus_failed = bus_failed
        self._board = LeaseBoard()

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew_for_ever)
                await self._govern(nursery)
        finally:
            with trio.CancelScope(shield=True):
                await self._give_back_all()

    # --- taking and giving back -----------------------------------------------------------------------------------

    async def _govern(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                asked = trio.current_time()
                found = await self._bus.kv_entries(Bucket.LEASES, LEASE_PREFIX)
                self._board.see(found)
                self._roster.sound = asked
                self._set_clock(found)
                if self._members.known:
                    await for_each(self._give_back, self._foreign())
                    await for_each(lambda number: self._take(number, nursery), self._vacant())
            except BusError as error:
                self._board.forget()  # while the bus is away no holder can renew its lease
                self._bus_failed(error)
            await trio.sleep_until(min(trio.current_time() + LOOK_SECONDS, self._board.next_expiry() + _A_LITTLE))

    def _set_clock(self, found: Mapping[str, KvEntry]) -> None:
        """Our own leases show the store's time at which they were renewed."""
        samples = []
        for share in self._roster.held():
            entry = found.get(lease_key(share.number))
            if entry is not None and entry.revision == share.lease.revision:
                samples.append((unix_ms_of(entry.time), share.lease.confirmed))
        if samples:
            self._clock.set(*max(samples, key=lambda sample: sample[0] - sample[1] * 1000))

    def _vacant(self) -> list[int]:
        """The shares to take: those that are free, and belong to this worker. Those of a dead worker are divided among
        the workers that have been here for long enough to know that it is dead.
        """
        me, live, steady = self._members.id, set(self._members.live()), self._members.steady(STEADY_SECONDS)
        vacant = []
        for number in range(SHARES):
            holder, expired = self._board.holder(lease_key(number)), self._board.is_expired(lease_key(number))
            if self._roster.shares[number] is None and (expired or holder in ("", me)):
                candidates = (steady if expired else live) - {holder}
                if owner_of(number, candidates | {me}) == me:
                    vacant.append(number)
        return vacant

    def _foreign(self) -> list[Share]:
        """The shares to give back: those that belong to another worker, which is here to stay."""
        steady = self._members.steady(STEADY_SECONDS)
        return [share for share in self._roster.held() if owner_of(share.number, steady) != self._members.id]

    async def _take(self, number: int, nursery: trio.Nursery) -> None:
        lease = Lease(self._bus, lease_key(number), self._members.id)
        if await lease.take(self._board.entry(lease_key(number))):
            share = self._roster.shares[number] = Share(number, lease)
            if not self._clock.known:
                self._set_clock(await self._bus.kv_entries(Bucket.LEASES, LEASE_PREFIX))
            nursery.start_soon(self._load, share)

    async def _give_back_all(self) -> None:
        """None is held afterwards: the lease of a share that could not be given back in time is left to expire."""
        shares = list(self._roster.held())
        with trio.move_on_after(_RELEASE_SECONDS), suppress(BusError):
            await for_each(self._give_back, shares)
        for share in shares:
            await self._forget(share)

    async def _give_back(self, share: Share) -> None:
        self._note_positions(share)
        self._roster.detach(share)
        try:
            await share.lease.release()
        finally:
            await self._clear(share)

    async def _forget(self, share: Share) -> None:
        """Whatever happens: what is left of a share's tasks would count forever, as messages that wait."""
        with trio.CancelScope(shield=True):
            self._roster.detach(share)
            await self._roster.clear(share)

    async def _clear(self, share: Share) -> None:
        await self._forget(share)
        if not any(self._roster.held()):
            self._bus.hear_beats(None)
            for reader in self._readers.values():
                await reader.stop()

    # --- keeping them ---------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            await trio.sleep(RENEW_SECONDS)
            try:
                await for_each(self._renew, list(self._roster.held()))
            except BusError as error:
                self._bus_failed(error)

    async def _renew(self, share: Share) -> None:
        self._note_positions(share)
        if not await share.lease.renew() and share.held:
            _log.warning("another worker has taken over share %d of the tasks", share.number)
            await self._clear(share)

    def _note_positions(self, share: Share) -> None:
        if share.loaded:
            for name, reader in self._readers.items():
                share.lease.positions[name], share.lease.said[name] = reader.position(share), reader.said(share)

    # --- loading them ---------------------------------------------------------------------------------------------

    async def _load(self, share: Share) -> None:
        """Know the tasks of a share that run, and have its messages read from where its last holder stopped."""
        while share.held:
            try:
                self._bus.hear_beats(self._roster.beat)
                for reader in self._readers.values():
                    await reader.listen()
                await self._begin(share, await self._bus.kv_entries(Bucket.RUNNING, str(share.number)))
            except BusError as error:
                self._bus_failed(error)
                await trio.sleep(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001  # our own fault, which every worker that had the share would meet
                self._faults.report(f"share {share.number} of the tasks", "it cannot be loaded")
                await trio.sleep(RESTART_SECONDS)
            else:
                return

    async def _begin(self, share: Share, entries: Mapping[str, KvEntry]) -> None:
        slices, tasks = Slices(SLICE_SECONDS), list[MonitoredTask]()
        for key, entry in entries.items():
            tasks += self._task_of(key, entry)
            await slices.breathe()
        tasks.sort(key=lambda task: task.changed_ms)
        for task in tasks:
            if not share.held:
                return
            self._roster.add(share, task)
            with self._roster.edge(task):
                self._roster.look(task, trio.current_time())
            await slices.breathe()
        if share.held:
            share.loaded = True
            self._roster.to_warm.extend(tasks[-MAX_ROWS:])
            for reader in self._readers.values():
                reader.begin(share)

    def _task_of(self, key: str, entry: KvEntry) -> list[MonitoredTask]:
        """The task of an entry, if it is one."""
        try:
            reader = self._readers.get(namespace_of(channel_of_entry(key)))
            if reader is None:
                return []  # the settings say no longer that its namespace has tasks
            task = task_of_entry(key, entry.value, entry.revision, reader.epoch, trio.current_time())
        except Exception:  # noqa: BLE001  # our own fault, which every worker that had the share would meet again
            self._faults.report(f"the entry {key} of a running task", "it is left out")
            return []
        return [] if task is None else [task]
