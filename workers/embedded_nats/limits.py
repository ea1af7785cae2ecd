"""How much the embedded nats-server may store, and which part of it is whose. Pure; all sizes are in bytes.

What JetStream may store in files is shared out: three eighths, at most 1.5 GiB, are reserved for the buckets (leases,
sessions, task records, ...) and the work queues; each namespace gets its `max_bytes`, or less in proportion if there is
not enough for all. A stream that has used up its share drops its oldest messages. So no namespace takes the room of
another one, of an inbox or of the task monitor, and the store as a whole is never full unless the disk is.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from fanline.engine.namespaces import Namespace, Storage

LEAST_BYTES = 16 << 20
"""With less room than this, there can be no store."""
_RESERVE_BYTES = 3 << 29
_SHARES = 12  # of the reserve: six are taken by the older buckets, five and a quarter by notifications and webhooks
_LEAST_MEMORY_BYTES = 1 << 20


class StoreLimits(NamedTuple):
    """What one embedded nats-server may store."""

    file_bytes: int
    memory_bytes: int
    namespaces: dict[str, Namespace]
    """The durable ones, each with its share as `max_bytes`."""
    bucket_bytes: int
    """For each bucket that grows with use; leases and live workers have the rest of the reserve."""


def share_out(durable: Mapping[str, Namespace], file_bytes: int, memory_bytes: int) -> StoreLimits:
    """Share out what may be stored in files and in memory, LEAST_BYTES at least."""
    reserve = min(file_bytes * 3 // 8, _RESERVE_BYTES)
    files = {name: each for name, each in durable.items() if each.storage is Storage.FILE}
    memory = {name: each for name, each in durable.items() if each.storage is Storage.MEMORY}
    shares = _shares(files, file_bytes - reserve) | _shares(memory, memory_bytes)
    namespaces = {name: msgspec.structs.replace(each, max_bytes=shares[name]) for name, each in durable.items()}
    in_memory = max(_LEAST_MEMORY_BYTES, sum(shares[name] for name in memory))
    return StoreLimits(file_bytes, in_memory, namespaces, reserve // _SHARES)


def _shares(namespaces: Mapping[str, Namespace], total: int) -> dict[str, int]:
    wanted = {name: total if each.max_bytes < 0 else min(each.max_bytes, total) for name, each in namespaces.items()}
    most = sum(wanted.values())
    return wanted if most <= total else {name: total * each // most for name, each in wanted.items()}
