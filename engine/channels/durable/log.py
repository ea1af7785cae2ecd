"""The log of a durable channel: the newest messages this worker has handed out, for clients that come back. No I/O."""

from collections import deque
from collections.abc import Iterable
from itertools import dropwhile

from fanline.engine.bus.interface import StreamPosition
from fanline.protocol.envelope import Envelope

Readable = tuple[Envelope | None, StreamPosition]
"""A stored message as it goes to clients, None if it cannot be read, and where it stands."""


class ChannelLog:
    """Every readable message with `floor < offset <= last`, in order, each following on the one before it."""

    __slots__ = ("_entries", "_limit", "_previous", "floor", "last")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[Envelope] = deque()
        self._previous = 0  # offset of the newest entry: what the next one follows on
        self.floor = 0
        self.last = 0
        """Offset up to which everything is here or known to be gone."""

    def reset(self, offset: int) -> None:
        """Forget everything; the next message is the first one after `offset`."""
        self._entries.clear()
        self.floor = self.last = self._previous = offset

    def append(self, envelope: Envelope, offset: int) -> None:
        """Take the channel's next message."""
        envelope.offset, envelope.previous = offset, self._previous
        self.last = self._previous = offset
        self._entries.append(envelope)
        self._trim()

    def skip(self, offset: int) -> None:
        """The channel's next message is one that goes to nobody."""
        self.last = offset

    def since(self, offset: int) -> list[Envelope] | None:
        """The messages after `offset`, oldest first; None if the log does not reach back that far."""
        if offset < self.floor:
            return None
        if offset >= self.last:
            return []
        return list(dropwhile(lambda envelope: (envelope.offset or 0) <= offset, self._entries))

    def all(self) -> list[Envelope]:
        """All messages the log holds, oldest first."""
        return list(self._entries)

    def offset_of(self, message_id: str) -> int | None:
        """The offset of a message the log holds; None if it has none with this id."""
        return next((envelope.offset for envelope in reversed(self._entries) if envelope.id == message_id), None)

    def extend_back(self, found: Iterable[Readable], floor: int) -> None:
        """Take older messages, read from the stream, so that the log reaches back to `floor` (within its limit)."""
        older, previous = [], floor
        for envelope, position in found:
            if envelope is not None and floor < position.offset <= self.floor:
                envelope.offset, envelope.previous = position.offset, previous
                previous = position.offset
                older.append(envelope)
        if self._entries:
            self._entries[0].previous = previous
        self._entries.extendleft(reversed(older))
        self.floor = min(floor, self.floor)
        self._trim()

    def _trim(self) -> None:
        while len(self._entries) > self._limit:
            self.floor = self._entries.popleft().offset or 0
