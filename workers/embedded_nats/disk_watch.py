"""Watches the disk of the embedded nats-server: whether there is room to store, and whether writing works. No I/O.

nats-server does not recover from a full disk: once a write has failed, the stream stores nothing until the process
ends, and publishers get no answer. So it is restarted before that, without permission to store: then each publisher
gets an error. Once there is room again, it is restarted with permission. It is also restarted when a write has failed.
"""

from typing import NamedTuple

_LOW_BYTES = 32 << 20
_WRITE_ERRORS = (b"ritical write error", b"no space left on device")


class DiskLevels(NamedTuple):
    """Free bytes at which storing ends and begins again."""

    low: int
    enough: int

    def is_full(self, free: int, *, was_full: bool) -> bool:
        """Whether nothing is to be stored now."""
        return free < (self.enough if was_full else self.low)


def levels_of(limit: int) -> DiskLevels:
    """For a store of `limit` bytes: the free space left must be enough for what is written between two checks."""
    low = min(_LOW_BYTES, limit // 8)
    return DiskLevels(low, 2 * low)


def has_write_error(log: bytes) -> bool:
    """Whether nats-server has reported that a write to its store failed."""
    return any(each in log for each in _WRITE_ERRORS)
