"""A lease: one worker at a time has a duty, and the next holder knows how far the last one got.

The holder rewrites the lease's entry every second. All others compare revisions only, each by its own clock: no worker
needs to know another one's time. Two workers may believe for a moment that they hold it, when one of them was asleep;
whatever is done under a lease must tolerate that.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import KvEntry
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.nats.names import Bucket

RENEW_SECONDS = 1.0
EXPIRY_SECONDS = 3.0
"""A lease that was not renewed for this long is free."""
_MARGIN = 0.5  # seconds before that at which the holder no longer relies on it


class ReadPosition(NamedTuple):
    """How far a stream was read."""

    epoch: str
    offset: int


class LeaseValue(msgspec.Struct):
    """The stored form of a lease."""

    worker: str = ""
    """The holder; empty after a release."""
    positions: dict[str, ReadPosition] = {}
    said: dict[str, ReadPosition] = {}
    """Namespace -> up to where it was said of each attempt that it has ended. Often ahead of `positions`, which wait
    until it is stored.
    """


class Lease:
    """One worker's claim to a duty."""

    def __init__(self, bus: Bus, duty: str, worker: str) -> None:
        self._bus = bus
        self._duty = duty
        self._worker = worker
        self._renewed = -math.inf
        self.revision = 0
        """Of its entry, as this worker has written it last."""
        self.confirmed = -math.inf
        """When that was confirmed, by Trio's clock."""
        self.positions: dict[str, ReadPosition] = {}
        """Namespace -> how far its stream was read: as the last holder left it, to be advanced by this one."""
        self.said: dict[str, ReadPosition] = {}
        """As in LeaseValue."""

    @property
    def valid(self) -> bool:
        """Whether no other worker can hold it now."""
        return trio.current_time() < self._renewed + EXPIRY_SECONDS - _MARGIN

    def check(self) -> None:
        """BusError if another worker may hold it by now: a worker that was asleep must not overwrite what the next
        holder has stored since.
        """
        if not self.valid:
            raise BusError("another worker may hold the lease by now")

    async def take(self, found: KvEntry | None) -> bool:
        """Take it, given the entry by which it is free; False if another worker was faster. BusError."""
        value = value_of(found)
        self.positions, self.said = value.positions, value.said
        self.revision = 0 if found is None else found.revision
        return await self._write(self._worker)

    async def renew(self) -> bool:
        """Keep it, and store the positions; False if this worker no longer holds it. BusError."""
        if await self._write(self._worker):
            return True
        # A write that was not confirmed may have been made all the same.
        entry = await self._bus.kv_get(Bucket.LEASES, self._duty)
        if entry is None or value_of(entry).worker != self._worker:
            self._renewed = -math.inf
            return False
        self.revision = entry.revision
        return await self._write(self._worker)

    async def release(self) -> None:
        """Make it free at once. BusError."""
        self._renewed = -math.inf
        await self._write("")
        self._renewed = -math.inf

    async def _write(self, worker: str) -> bool:
        value = msgspec.json.encode(LeaseValue(worker, self.positions, self.said))
        asked = trio.current_time()
        try:
            self.revision = await self._bus.kv_update(Bucket.LEASES, self._duty, value, self.revision)
        except ConflictError:
            return False
        self._renewed, self.confirmed = asked, trio.current_time()
        return True


class LeaseBoard:
    """All leases, as they were found last: which of them are free. `see` is to be called at least twice a second."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[KvEntry, str, float]] = {}  # entry, holder, since when it has been that

    def see(self, found: Mapping[str, KvEntry]) -> None:
        """Take in what the bucket holds now."""
        now, before = trio.current_time(), self._found
        self._found = {}
        for duty, entry in found.items():
            known = before.get(duty)
            if known is not None and known[0].revision == entry.revision:
                self._found[duty] = known
            else:
                self._found[duty] = (entry, value_of(entry).worker, now)

    def forget(self) -> None:
        """The bus was away, and no holder could renew its lease."""
        self._found.clear()

    def entry(self, duty: str) -> KvEntry | None:
        return self._found[duty][0] if duty in self._found else None

    def holder(self, duty: str) -> str:
        """The worker that holds it, or did until it expired; "" for none."""
        return self._found[duty][1] if duty in self._found else ""

    def is_expired(self, duty: str) -> bool:
        """Whether its holder has not renewed it in time."""
        return duty in self._found and trio.current_time() >= self._found[duty][2] + EXPIRY_SECONDS

    def next_expiry(self) -> float:
        """When the next lease expires unless it is renewed, by Trio's clock; infinity if none does."""
        now = trio.current_time()
        moments = (since + EXPIRY_SECONDS for _, _, since in self._found.values())
        return min((moment for moment in moments if moment > now), default=math.inf)


def value_of(entry: KvEntry | None) -> LeaseValue:
    """The lease in an entry; an entry that no worker of ours has written is a free lease."""
    found = None if entry is None else read_entry(LeaseValue, entry.value, "a lease")
    return found or LeaseValue()
