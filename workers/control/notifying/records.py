"""What is known of notifications that came before: decisions, what has left, and how many a user has got.

All of it expires when a request cannot come again. A decision is stored before anything is done, and found again by
the process that goes on after another one was killed: both do the same.
"""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.nats.streams.work_streams import WAITING_SECONDS
from fanline.protocol.nats.names import Bucket, name_key
from fanline.protocol.notifications.dispatches import NotificationDecision
from fanline.protocol.notifications.notification import NotificationChannel

_HOUR = 3600
_TRIES = 10


class KnownDecision(NamedTuple):
    """A decision, and whether it was made just now: nothing of it was carried out then."""

    decision: NotificationDecision
    is_new: bool


class Records:
    """`clock`: Unix seconds. The methods raise BusError."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock

    async def decision(
        self, user: str, notification: str, request: str, decide: Callable[[], Awaitable[NotificationDecision]]
    ) -> KnownDecision | None:
        """What was decided of a user's notification, once and for all; None if another request with the same id came
        before.
        """
        key = f"n.{name_key(user)}.{name_key(notification)}"
        entry = await self._bus.kv_get(Bucket.NOTIFIED, key)
        if entry is None:
            decided = await decide()
            try:
                await self._bus.kv_put(Bucket.NOTIFIED, key, msgspec.json.encode(decided), WAITING_SECONDS, 0)
            except ConflictError:
                entry = await self._bus.kv_get(Bucket.NOTIFIED, key)
            else:
                return KnownDecision(decided, is_new=True)
        found = None if entry is None else msgspec.json.decode(entry.value, type=NotificationDecision)
        return KnownDecision(found, is_new=False) if found is not None and found.request == request else None

    async def is_first(self, user: str, what: str, request: str, seconds: float) -> bool:
        """Whether no other request has come for this within `seconds` seconds."""
        key = f"k.{name_key(user)}.{name_key(what)}"
        entry = await self._bus.kv_get(Bucket.NOTIFIED, key)
        if entry is None:
            try:
                await self._bus.kv_put(Bucket.NOTIFIED, key, request.encode(), seconds, 0)
            except ConflictError:
                entry = await self._bus.kv_get(Bucket.NOTIFIED, key)
        return entry is None or entry.value == request.encode()

    async def count(self, user: str, channel: NotificationChannel) -> int:
        """How many a user has got by a channel in this hour, with the one that is about to go."""
        key = f"r.{name_key(user)}.{channel}.{int(self._clock() // _HOUR)}"
        for left in reversed(range(_TRIES)):
            entry = await self._bus.kv_get(Bucket.NOTIFIED, key)
            revision, number = (0, 1) if entry is None else (entry.revision, int(entry.value) + 1)
            try:
                await self._bus.kv_put(Bucket.NOTIFIED, key, b"%d" % number, 2 * _HOUR, revision)
            except ConflictError:
                if not left:
                    raise
            else:
                return number
        raise AssertionError

    async def has_left(self, dispatch: str) -> bool:
        """Whether a dispatch was taken, or given up."""
        entry = await self._bus.kv_get(Bucket.NOTIFIED, f"d.{dispatch}")
        return entry is not None and bool(entry.value)

    async def left(self, dispatch: str, outcome: str) -> None:
        """A dispatch was taken, or given up."""
        await self._bus.kv_put(Bucket.NOTIFIED, f"d.{dispatch}", outcome.encode(), WAITING_SECONDS)
