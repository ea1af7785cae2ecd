"""The log of a durable channel: the newest messages this worker has handed out, for clients that come back. No I/O.

It is bounded in messages, and in bytes together with all logs of the worker (log_budget.py). What it lets go can still
be read from the stream.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.durable.log_budget import LogBudget, up_to, weight_of
from fanline.protocol.envelope import Envelope

Readable = tuple[Envelope | None, StreamPosition]
"""A stored message as it goes to clients, None if it cannot be read, and where it stands."""


class LogPart(NamedTuple):
    """A part of a log."""

    messages: list[Envelope]
    """Oldest first."""
    reached: int
    """With them, a client has everything up to here."""
    weight: int
    """Bytes that they take at most."""


class ChannelLog:
    """Every readable message with `floor < offset <= last`, in order, each following on the one before it."""

    __slots__ = ("_budget", "_entries", "_limit", "_previous", "floor", "last", "weight")

    def __init__(self, limit: int, budget: LogBudget | None = None) -> None:
        self._limit = limit
        self._budget = budget or LogBudget()
        self._entries: deque[Envelope] = deque()
        self._previous = 0  # offset of the newest message: what the next one follows on
        self.weight = 0
        """Bytes of memory that the entries take, about."""
        self.floor = 0
        self.last = 0
        """Offset up to which everything is here or known to be gone."""

    def reset(self, offset: int) -> None:
        """Forget everything; the next message is the first one after `offset`."""
        self._entries.clear()
        self._grow(-self.weight)
        self._budget.leave(self)
        self.floor = self.last = self._previous = offset

    def close(self) -> None:
        """Forget everything, and keep nothing from now on: the channel is closed."""
        self.reset(self.last)
        self._limit = 0

    def append(self, envelope: Envelope, offset: int) -> None:
        """Take the channel's next message."""
        envelope.offset, envelope.previous = offset, self._previous
        self.last = self._previous = offset
        entries, budget = self._entries, self._budget
        if not entries:
            budget.enter(self)
        entries.append(envelope)
        more = weight_of(envelope)
        if len(entries) > self._limit:  # the common case, on the hot path
            oldest = entries.popleft()
            self.floor = oldest.offset or 0
            more -= weight_of(oldest)
            if not entries:  # it is closed
                budget.leave(self)
        self.weight += more
        budget.used += more
        if self.weight > budget.share or budget.used > budget.most:
            self._trim()

    def skip(self, offset: int) -> None:
        """The channel's next message goes to no subscriber."""
        self.last = offset

    def after(self, offset: int, most: int) -> LogPart | None:
        """The messages after `offset`, up to the one that makes them `most` bytes or more; None if the log does not
        reach back that far.
        """
        if offset < self.floor:
            return None
        self._budget.use(self)
        newer = islice(self._entries, bisect_right(self._entries, offset, key=stored_offset), None)
        if self.weight <= most:
            return LogPart(list(newer), max(offset, self.last), self.weight)
        messages, weight = up_to(newer, most)
        is_all = not messages or messages[-1] is self._entries[-1]
        return LogPart(messages, max(offset, self.last) if is_all else stored_offset(messages[-1]), weight)

    def all(self) -> list[Envelope]:
        """All messages the log holds, oldest first."""
        return list(self._entries)

    @property
    def first(self) -> int:
        """Offset of the oldest message it holds; of the next one if it holds none."""
        return stored_offset(self._entries[0]) if self._entries else self.last + 1

    def offset_of(self, message_id: str) -> int | None:
        """The offset of a message the log holds; None if it has none with this id."""
        found = self.find(message_id)
        return None if found is None else found.offset

    def find(self, message_id: str) -> Envelope | None:
        """A message the log holds; None if it has none with this id."""
        return next((envelope for envelope in reversed(self._entries) if envelope.id == message_id), None)

    def extend_back(self, found: Iterable[Readable], floor: int) -> None:
        """Take older messages, read from the stream, so that the log reaches back to `floor` (within its bounds)."""
        older, previous = [], floor
        for envelope, position in found:
            if envelope is not None and floor < position.offset <= self.floor:
                envelope.offset, envelope.previous = position.offset, previous
                previous = position.offset
                older.append(envelope)
        if self._entries:
            self._entries[0].previous = previous
        elif older:  # the channel may have been opened behind its newest message, at the end of the whole stream
            self._previous = previous
        self._entries.extendleft(reversed(older))
        self.floor = min(floor, self.floor)
        if self._entries:
            self._budget.enter(self)
        self._grow(sum(map(weight_of, older)))
        self._trim()

    def drop_oldest(self) -> None:
        """Let the oldest message go."""
        oldest = self._entries.popleft()
        self.floor = stored_offset(oldest)
        self._grow(-weight_of(oldest))
        if not self._entries:
            self._budget.leave(self)

    def _grow(self, weight: int) -> None:
        self.weight += weight
        self._budget.used += weight

    def _trim(self) -> None:
        while len(self._entries) > self._limit or self.weight > self._budget.share:
            self.drop_oldest()
        self._budget.make_room()


def stored_offset(envelope: Envelope) -> int:
    """The offset of a message that is stored."""
    return envelope.offset or 0
