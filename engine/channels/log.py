"""The log of one durable channel in one worker: which of its messages come next, and which are missing. Pure; no I/O.

The log holds every message with `floor < offset <= last`, in order. `last` is the newest offset up to which nothing is
missing; a message that does not follow on it opens a hole, and is held with all later ones until the hole is mended
from the stream. What is handed out is thus an exact sequence, or it is interrupted by a `gap` that says what is gone.

A message's `Nats-Last-Sequence` proves a hole when it is newer than `last`. When it is 0 or older it proves nothing,
for the predecessor may have expired; but this worker has listened without a break, so `last` is the true predecessor.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import dropwhile

from fanline.engine.bus.interface import StreamPosition
from fanline.engine.tasks.fold import TaskLog
from fanline.protocol.envelope import Envelope, MessageType

_HELD_MOST = 10_000  # messages held while the stream cannot be asked; older ones are read from it anyway


class LogState(Enum):
    OPENING = auto()  # listening, but from which offset on is not known yet
    STEADY = auto()  # every message is handed out as it comes
    MENDING = auto()  # something may be missing: messages are held until the stream has been asked


class GapReason:
    """The `reason` of a gap frame."""

    EXPIRED = "expired"  # the stream no longer holds it (age, length or size limit)
    EPOCH = "epoch"  # the stream was made anew: offsets start again


class ChannelLog:
    """One durable channel. `limit` bounds the messages kept for those who come back."""

    __slots__ = (
        "__weakref__",
        "_entries",
        "_held",
        "_limit",
        "_previous",
        "bottom",
        "channel",
        "epoch",
        "floor",
        "last",
        "state",
        "task",
    )

    def __init__(self, channel: str, limit: int, task: TaskLog | None = None) -> None:
        self.channel = channel
        self._limit = limit
        self._entries: deque[Envelope] = deque()
        self._held: deque[tuple[Envelope | None, StreamPosition]] = deque(maxlen=_HELD_MOST)
        self._previous = 0  # offset of the last message handed out: what the next one follows on
        self.task = task
        """Of a task channel: sees each message as it gets its position, and edits what viewers get."""
        self.state = LogState.OPENING
        self.epoch = ""
        self.floor = 0
        self.last = 0
        self.bottom: int | None = None
        """Set when all that the stream holds was read: who has less than up to here may have missed some of it."""

    @property
    def heard(self) -> int:
        """Offset of the newest message that is held; 0 for none."""
        return max((position.offset for _, position in self._held), default=0)

    def receive(self, envelope: Envelope | None, position: StreamPosition) -> list[Envelope]:
        """Take the next message of the bus; what can be handed out now. The state says whether a hole was found.

        None for a message that could not be read: it has its position, and nobody to go to.
        """
        if self.state is not LogState.STEADY:
            self._held.append((envelope, position))
            return []
        if position.offset <= self.last or position.previous > self.last:
            # Older than what we have: a repeat, or another life of the stream. The stream has to be asked either way.
            self.state = LogState.MENDING
            self._held.append((envelope, position))
            return []
        return self._append(envelope, position.offset)

    def open(self, epoch: str, last: int) -> list[Envelope]:
        """The stream's word on where the channel stands; what came since then can be handed out."""
        self.epoch = epoch
        self._forget(last)
        return self._release()

    def suspect(self) -> None:
        """Messages may have been lost: hold what comes until `mend` or `restart`."""
        if self.state is LogState.STEADY:
            self.state = LogState.MENDING

    def mend(
        self, found: Sequence[tuple[Envelope | None, StreamPosition]], lost_until: int = 0, read_until: int = 0
    ) -> list[Envelope]:
        """Close a hole with what the stream holds after `last`; what can be handed out, in order.

        `lost_until`: the newest offset that may be gone for good; 0 for none. `read_until`: `found` is all that the
        stream holds up to here, so a message that another one follows on and that is not in it is gone for good.
        """
        known = {position.offset: (envelope, 0) for envelope, position in found}
        for envelope, position in self._held:
            if position.offset <= read_until:
                known[position.offset] = (envelope, position.previous)
        ready = self._give_up(lost_until)
        for offset, (envelope, previous) in sorted(known.items()):
            if offset > self.last:
                ready += self._give_up(previous)
                ready += self._append(envelope, offset)
        return ready + self._release()

    def restart(self, epoch: str) -> list[Envelope]:
        """The stream was made anew: say so, and expect its first message; still to be mended with what it holds."""
        self.epoch = epoch
        if self.task is not None:
            self.task.offset = 0  # what is known of it stays, offsets begin anew
        self._held.clear()  # what came of the new life is in the stream
        self._forget(0)
        return [self.gap(0, 0, GapReason.EPOCH)]

    def since(self, offset: int) -> list[Envelope] | None:
        """The messages after `offset`, oldest first; None if the log does not reach back so far."""
        if offset < self.floor:
            return None
        if offset >= self.last:
            return []
        return list(dropwhile(lambda envelope: (envelope.offset or 0) <= offset, self._entries))

    def offset_of(self, message_id: str) -> int | None:
        """The offset of a message the log holds; None if it has none of this id."""
        return next((envelope.offset for envelope in reversed(self._entries) if envelope.id == message_id), None)

    def extend_back(self, found: Iterable[tuple[Envelope | None, StreamPosition]], floor: int) -> None:
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

    def gap(self, first: int, last: int, reason: str) -> Envelope:
        """A `gap` frame for the offsets from `first` to `last`."""
        data = {"from": first, "to": last, "reason": reason}
        return Envelope(MessageType.GAP, channel=self.channel, epoch=self.epoch, data=data)

    def _append(self, envelope: Envelope | None, offset: int) -> list[Envelope]:
        self.last = offset
        if envelope is not None and self.task is not None:
            envelope = self.task.take(envelope, offset)
        if envelope is None:
            return []
        envelope.offset, envelope.previous = offset, self._previous
        self._previous = offset
        self._entries.append(envelope)
        self._trim()
        return [envelope]

    def _release(self) -> list[Envelope]:
        """Hand out what was held, as far as it follows on; another hole starts over."""
        held = sorted(self._held, key=lambda item: item[1].offset)
        self._held.clear()
        self.state = LogState.STEADY
        ready = []
        for envelope, position in held:
            if self.state is LogState.STEADY and position.offset <= self.last:
                continue  # mended already
            ready += self.receive(envelope, position)
        return ready

    def _give_up(self, until: int) -> list[Envelope]:
        """What comes after `last` and up to here is gone for good: the gap that says so."""
        if until <= self.last:
            return []
        gap = self.gap(self.last + 1, until, GapReason.EXPIRED)
        self._forget(until)
        return [gap]

    def _forget(self, last: int) -> None:
        self._entries.clear()
        self.floor = self.last = self._previous = last
        self.bottom = None

    def _trim(self) -> None:
        while len(self._entries) > self._limit:
            self.floor = self._entries.popleft().offset or 0
