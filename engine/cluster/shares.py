"""The shares into which all tasks are divided, and which worker each belongs to. Pure."""

from collections.abc import Collection
from hashlib import blake2b
from zlib import crc32

from fanline.protocol.channels import check_channel
from fanline.protocol.errors import MessageError

SHARES = 16
"""A power of two. Workers of different versions must agree on it, and on `share_of`."""


def share_of(channel: str) -> int:
    """The share that a task belongs to, forever."""
    return crc32(channel.encode()) & (SHARES - 1)


def is_channel(name: str) -> bool:
    """Whether a task can have this name: any client of NATS may publish on a subject that belongs to no channel, even
    with a wildcard in it.
    """
    try:
        return check_channel(name) == name
    except MessageError:
        return False


def owner_of(share: int, workers: Collection[str]) -> str:
    """The worker a share belongs to, by rendezvous hashing: when a worker comes or goes, only its shares move."""
    return max(workers, key=lambda worker: _weight(worker, share))


def _weight(worker: str, share: int) -> bytes:
    return blake2b(f"{share} {worker}".encode(), digest_size=8).digest()
