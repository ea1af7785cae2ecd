"""A lease: one worker at a time has a duty, and the next holder knows how far the last one got.

The holder rewrites the lease's entry every second. All others compare revisions only, each by its own clock: no worker
needs to know another one's time. Two workers may believe for a moment that they hold it, when one of them was asleep;
whatever is done under a lease must tolerate that.
"""

import math
import os
import secrets
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.interface import Bus, BusError, ConflictError, KvEntry
from fanline.protocol.nats.names import Bucket

RENEW_SECONDS = 1.0
EXPIRY_SECONDS = 3.0
"""A lease that was not renewed for this long is free."""
_MARGIN = 0.5  # seconds before that at which the holder no longer relies on it


class ReadPosition(NamedTuple):
    """How far a stream was read."""

    epoch: str
    offset: int


class _LeaseValue(msgspec.Struct):
    """What is stored of a lease."""

    worker: str = ""
    """The holder; empty after a release."""
    positions: dict[str, ReadPosition] = {}


class Lease:
    """One worker's view of the lease of a duty."""

    def __init__(self, bus: Bus, duty: str) -> None:
        self._bus = bus
        self._duty = duty
        self._worker = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._renewed = -math.inf
        self._seen: tuple[int, float] | None = None  # another holder's revision, and since when it has been that
        self.positions: dict[str, ReadPosition] = {}
        """Namespace -> how far its stream was read: as the last holder left it, to be advanced by this one."""

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

    async def take(self) -> bool:
        """Take it if it is free; whether this worker holds it now. BusError."""
        asked = trio.current_time()
        try:
            entry = await self._bus.kv_get(Bucket.LEASES, self._duty)
        except BusError:
            self._seen = None  # while the bus is away the holder cannot renew it
            raise
        value = _value_of(entry)
        if value.worker not in ("", self._worker) and not self._is_expired(entry):
            return False
        self.positions = value.positions
        return await self._write(entry, self._worker, asked)

    async def renew(self) -> bool:
        """Keep it, and store the positions; False if this worker no longer holds it. BusError."""
        asked = trio.current_time()
        entry = await self._bus.kv_get(Bucket.LEASES, self._duty)
        return _value_of(entry).worker == self._worker and await self._write(entry, self._worker, asked)

    async def release(self) -> None:
        """Make it free at once. BusError."""
        self._renewed = -math.inf
        entry = await self._bus.kv_get(Bucket.LEASES, self._duty)
        if _value_of(entry).worker == self._worker:
            await self._write(entry, "", -math.inf)

    async def _write(self, entry: KvEntry | None, worker: str, asked: float) -> bool:
        value = msgspec.json.encode(_LeaseValue(worker, self.positions))
        try:
            await self._bus.kv_update(Bucket.LEASES, self._duty, value, entry.revision if entry else 0)
        except ConflictError:
            return False
        self._renewed = asked
        return True

    def _is_expired(self, entry: KvEntry | None) -> bool:
        revision, now = entry.revision if entry else 0, trio.current_time()
        if self._seen is None or self._seen[0] != revision:
            self._seen = (revision, now)
        return now - self._seen[1] >= EXPIRY_SECONDS


def _value_of(entry: KvEntry | None) -> _LeaseValue:
    try:
        return _LeaseValue() if entry is None else msgspec.json.decode(entry.value, type=_LeaseValue)
    except msgspec.DecodeError:
        return _LeaseValue()  # no worker of ours has written that
