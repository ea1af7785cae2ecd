"""A lease: of all workers one at a time has a duty, and who has it next knows how far it was done.

The holder rewrites its note each second. Everybody else compares revisions only, by its own clock: no worker needs to
know what time another one has. Two may believe that they have it for a moment, when one of them was asleep; what is
done under a lease must bear that.
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
"""A lease that was not renewed for so long is free."""
_MARGIN = 0.5  # seconds that the holder gives it up before that


class MonitorPosition(NamedTuple):
    """Up to where a stream was worked off."""

    epoch: str
    offset: int


class _Content(msgspec.Struct):
    worker: str = ""
    """Who has it; empty after it was released."""
    positions: dict[str, MonitorPosition] = {}


class Lease:
    """One worker's view of the lease of a duty."""

    def __init__(self, bus: Bus, duty: str) -> None:
        self._bus = bus
        self._duty = duty
        self._worker = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._renewed = -math.inf
        self._seen: tuple[int, float] | None = None  # somebody else's revision, and since when
        self.positions: dict[str, MonitorPosition] = {}
        """Stream -> how far it was done: as the last holder left it, to be moved on by this one."""

    @property
    def valid(self) -> bool:
        """Whether nobody else can have it now."""
        return trio.current_time() < self._renewed + EXPIRY_SECONDS - _MARGIN

    async def take(self) -> bool:
        """Take it if it is free; whether it is ours now. BusError."""
        asked = trio.current_time()
        try:
            note = await self._bus.kv_get(Bucket.LEASES, self._duty)
        except BusError:
            self._seen = None  # while the bus is away nobody can renew
            raise
        content = _content(note)
        if content.worker not in ("", self._worker) and not self._is_expired(note):
            return False
        self.positions = content.positions
        return await self._write(note, self._worker, asked)

    async def renew(self) -> bool:
        """Keep it, and note the positions; False if it is no longer ours. BusError."""
        asked = trio.current_time()
        note = await self._bus.kv_get(Bucket.LEASES, self._duty)
        return _content(note).worker == self._worker and await self._write(note, self._worker, asked)

    async def release(self) -> None:
        """Let another one have it at once. BusError."""
        self._renewed = -math.inf
        note = await self._bus.kv_get(Bucket.LEASES, self._duty)
        if _content(note).worker == self._worker:
            await self._write(note, "", -math.inf)

    async def _write(self, note: KvEntry | None, worker: str, asked: float) -> bool:
        value = msgspec.json.encode(_Content(worker, self.positions))
        try:
            await self._bus.kv_update(Bucket.LEASES, self._duty, value, note.revision if note else 0)
        except ConflictError:
            return False
        self._renewed = asked
        return True

    def _is_expired(self, note: KvEntry | None) -> bool:
        revision, now = note.revision if note else 0, trio.current_time()
        if self._seen is None or self._seen[0] != revision:
            self._seen = (revision, now)
        return now - self._seen[1] >= EXPIRY_SECONDS


def _content(note: KvEntry | None) -> _Content:
    try:
        return _Content() if note is None else msgspec.json.decode(note.value, type=_Content)
    except msgspec.DecodeError:
        return _Content()  # nobody of ours has written that
