"""Inboxes: how far a user has acknowledged a channel like `user:5`. One cursor a channel, shared by all its devices.

The cursor is a value in a bucket. It only ever moves forward, by compare-and-set, so two devices that acknowledge at
once end at the newer of the two. A client that subscribes without a position begins behind it, so messages that were
not acknowledged come again.
"""

from fanline.engine.bus.interface import Bus, BusError, ConflictError
from fanline.protocol.nats.names import Bucket, channel_key

_TRIES = 5


async def read_cursor(bus: Bus, channel: str) -> int:
    """The offset up to which an inbox is acknowledged; 0 if nothing is. BusError."""
    entry = await bus.kv_get(Bucket.CURSORS, channel_key(channel))
    return 0 if entry is None else int(entry.value)


async def move_cursor(bus: Bus, channel: str, offset: int) -> None:
    """Acknowledge everything up to `offset`; going back is ignored. BusError."""
    key = channel_key(channel)
    for _ in range(_TRIES):
        entry = await bus.kv_get(Bucket.CURSORS, key)
        if entry is not None and int(entry.value) >= offset:
            return
        try:
            await bus.kv_update(Bucket.CURSORS, key, b"%d" % offset, 0 if entry is None else entry.revision)
        except ConflictError:
            continue
        return
    raise BusError(f"too many devices acknowledge {channel} at once; try again")
