"""One durable namespace in memory: the twin of a JetStream stream."""

import itertools
from collections.abc import Callable
from datetime import datetime

from fanline.engine.bus.stored import READ_BATCH, Epoch, Page, Stored, StreamPosition, StreamState
from fanline.engine.namespaces import Namespace


class MemoryStream:
    """Messages in order, bounded per channel; their store ids are remembered."""

    batch = READ_BATCH
    """Messages that one read returns at most."""
    _epochs = itertools.count(1)

    def __init__(self, namespace: Namespace, timestamp: Callable[[], str]) -> None:
        self._namespace = namespace
        self._timestamp = timestamp
        self._messages: list[Stored] = []
        self._ids: dict[str, int] = {}
        self._last = 0
        self._epoch = Epoch(f"memory{next(self._epochs)}")

    def append(
        self, channel: str, payload: bytes, store_id: str | None, *, signed: bool = False
    ) -> tuple[Stored | None, int]:
        """The message to republish, None if the store id is a repeat, and its offset."""
        if store_id in self._ids:
            return None, self._ids[store_id]
        own = [stored for stored in self._messages if stored.channel == channel]
        previous = own[-1].position.offset if own else 0
        self._last += 1
        stored = Stored(channel, payload, StreamPosition(self._last, previous, self._timestamp(), signed))
        if len(own) >= self._namespace.history:
            self._messages.remove(own[0])
        self._messages.append(stored)
        if store_id is not None:
            self._ids[store_id] = self._last
        return stored, self._last

    def rewind(self, last: int) -> None:
        """Begin another start from an older copy, which held the messages up to `last`; or from all there is."""
        earlier = {name: min(until, last) for name, until in self._epoch.earlier.items()}
        created = self._epoch.name.partition(".")[0]
        self._epoch = Epoch(f"{created}.{next(self._epochs)}", {**earlier, self._epoch.name: min(last, self._last)})
        self._messages = [stored for stored in self._messages if stored.position.offset <= last]
        self._ids = {message_id: offset for message_id, offset in self._ids.items() if offset <= last}
        self._last = min(last, self._last)

    def expire(self, until: int) -> None:
        """Drop the messages up to an offset, as the maximum age does."""
        self._messages = [stored for stored in self._messages if stored.position.offset > until]

    def state(self) -> StreamState:
        if not self._messages:
            return StreamState(self._epoch, self._last + 1, self._last, float("inf"), 0)
        size = sum(len(stored.payload) for stored in self._messages)
        oldest = self._messages[0].position
        first_time = datetime.fromisoformat(oldest.time).timestamp()
        return StreamState(self._epoch, oldest.offset, self._last, first_time, size)

    def read(self, channel: str | None, start: int, most: int = READ_BATCH) -> Page:
        """Messages of one channel; None: of all."""
        matching = [m for m in self._messages if channel in (None, m.channel) and m.position.offset >= start]
        most = min(most, self.batch)
        return Page(matching[:most], max(0, len(matching) - most))

    def newest(self, channel: str) -> int | None:
        return next((m.position.offset for m in reversed(self._messages) if m.channel == channel), None)
