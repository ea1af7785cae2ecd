"""What the buses of one process share in memory: the twin of a nats-server."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import trio

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Answerer
from fanline.engine.bus.memory.stream import MemoryStream
from fanline.engine.bus.stored import KvEntry
from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.names import Bucket

if TYPE_CHECKING:
    from fanline.engine.bus.memory.bus import MemoryBus


class _ExpiringEntry(NamedTuple):
    entry: KvEntry
    expires: float
    """By Trio's clock, in seconds."""


Listener = Callable[[bytes], Awaitable[bytes]]
"""A producer that is called: payload of the call -> its answer."""


class MemoryBroker:
    """What nats-server is to NatsBus: where the buses of one process meet, and the store."""

    def __init__(self, namespaces: Namespaces | None = None, clock: Callable[[], float] = time.time) -> None:
        self.namespaces = namespaces or Namespaces()
        self.clock = clock
        """The clock of the store, Unix seconds."""
        self.buses: list[MemoryBus] = []
        self.max_payload = 1024 * 1024
        self.available = True
        """False makes every request fail, as while NATS is away."""
        self.buckets: dict[tuple[Bucket, str], _ExpiringEntry] = {}
        self.listeners: dict[str, Listener] = {}
        """Channel -> the producer that listens on its `ctl` subject."""
        self.shared: set[str] = set()
        """Subjects on which one worker answers for all."""
        self.streams = {name: self._stream(name) for name in self.namespaces.durable()}
        self._revisions = itertools.count(1)

    def recreate(self, namespace: str) -> None:
        """Delete and recreate a stream, which gives it another epoch."""
        self.streams[namespace] = self._stream(namespace)

    def lose_buckets(self) -> None:
        """Delete and recreate all buckets, whose revisions begin again."""
        self.buckets.clear()
        self._revisions = itertools.count(1)

    def _stream(self, namespace: str) -> MemoryStream:
        return MemoryStream(self.namespaces.durable()[namespace], self._timestamp)

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).isoformat()

    def beat(self, channel: str) -> None:
        """Send a producer's sign of life to all workers."""
        for bus in self.buses:
            bus.hear(channel)

    def answerers(self, subject: str) -> list[Answerer]:
        """The listeners of a subject, while the broker is available."""
        found = [take for bus in self.buses if (take := bus.answerers.get(subject)) is not None]
        return found[: 1 if subject in self.shared else None] if self.available else []

    def find(self, bucket: Bucket, key: str) -> KvEntry | None:
        found = self.buckets.get((bucket, key))
        return None if found is None or found.expires <= trio.current_time() else found.entry

    def write(self, bucket: Bucket, key: str, value: bytes, seconds: float = math.inf) -> int:
        entry = KvEntry(value, next(self._revisions), self._timestamp())
        self.buckets[bucket, key] = _ExpiringEntry(entry, trio.current_time() + seconds)
        for bus in self.buses:
            if (watcher := bus.watchers.get(bucket)) is not None:
                watcher.changed(key, value)
        return entry.revision

    def check(self, bucket: Bucket, key: str, revision: int) -> None:
        """ConflictError if a key has another revision."""
        found = self.find(bucket, key)
        if (found.revision if found else 0) != revision:
            raise ConflictError(f"{key} has changed")
