"""Inboxes: how far a user has acknowledged a channel like `user:5`. One cursor a channel, shared by all its devices.

The cursor is a value in a bucket. It only ever moves forward, by compare-and-set, so two devices that acknowledge at
once end at the newer of the two. A client that subscribes without a position begins behind it, so messages that were
not acknowledged come again. It names the epoch of its offset, for it is stored apart from the messages: after a loss of
power it may be newer than they are, and must not hide the next ones.
"""

import logging
from typing import NoReturn

import trio

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.bus.stored import Epoch
from fanline.protocol.nats.names import Bucket, channel_key

_TRIES = 5
_PAUSE_SECONDS = 0.1  # in which acknowledgements of one inbox become one
_log = logging.getLogger("fanline.inbox")


class Acknowledgements:
    """Those of one worker that nobody waits for: they are written soon, and if they cannot be, messages come again."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._noted: dict[str, tuple[int, Epoch]] = {}
        self._work = trio.Event()

    def note(self, channel: str, offset: int, epoch: Epoch) -> None:
        """A client has taken everything up to this offset."""
        known = self._noted.get(channel)
        newest = max(offset, known[0]) if known is not None and known[1] == epoch else offset
        self._noted[channel] = (newest, epoch)
        self._work.set()

    async def run(self) -> NoReturn:
        """Move cursors forever."""
        while True:
            await self._work.wait()
            await trio.sleep(_PAUSE_SECONDS)
            self._work = trio.Event()
            noted, self._noted = self._noted, {}
            await for_each(self._move, list(noted.items()))

    async def _move(self, noted: tuple[str, tuple[int, Epoch]]) -> None:
        channel, (offset, epoch) = noted
        try:
            await move_cursor(self._bus, channel, offset, epoch)
        except BusError as error:
            _log.debug("the cursor of %s cannot be moved: %s", channel, error)


async def read_cursor(bus: Bus, channel: str, epoch: Epoch) -> int:
    """The offset of an epoch up to which an inbox is acknowledged; 0 if nothing is. BusError."""
    entry = await bus.kv_get(Bucket.CURSORS, channel_key(channel))
    return 0 if entry is None else _offset_in(epoch, entry.value)


def _offset_in(epoch: Epoch, value: bytes) -> int:
    """What a cursor says about an epoch. A cursor without an epoch was written by an earlier version."""
    offset, _, name = value.decode().partition(" ")
    return int(offset) if epoch.covers(name or None, int(offset)) else epoch.earlier.get(name, 0)


async def move_cursor(bus: Bus, channel: str, offset: int, epoch: Epoch) -> None:
    """Acknowledge everything up to an offset of an epoch; going back is ignored. BusError."""
    key = channel_key(channel)
    for _ in range(_TRIES):
        entry = await bus.kv_get(Bucket.CURSORS, key)
        if entry is not None and _offset_in(epoch, entry.value) >= offset:
            return
        value = f"{offset} {epoch.name}".encode()
        try:
            await bus.kv_update(Bucket.CURSORS, key, value, 0 if entry is None else entry.revision)
        except ConflictError:
            continue
        return
    raise BusError(f"too many devices acknowledge {channel} at once; try again")
