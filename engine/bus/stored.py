"""What the store has, as the bus hands it out: messages and their positions, epochs of streams, entries of buckets."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

READ_BATCH = 1000
"""Messages that `read` returns at most."""
MULTI_LAST = 1000
"""Channels that `last_offsets` may be asked about at once: JetStream refuses more than 1,024 answers (status 413)."""
RESUME_WINDOW = 120.0
"""Seconds for which a session whose connection was lost can be resumed: those of an entry in the bucket SESSIONS."""


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """Where a stored message stands in its stream."""

    offset: int
    """Its sequence number in the stream, which is its offset in the channel: growing, but not without gaps."""
    previous: int
    """Offset of the message before it in the channel; 0 also if that one is no longer stored (docs: ADR 0006)."""
    time: str
    """When it was stored, RFC 3339."""
    signed: bool = False
    """Whether the engine has stored it as `signed`, or it is older than any signature."""


class Stored(NamedTuple):
    """A message as a stream holds it."""

    channel: str
    payload: bytes
    position: StreamPosition


class StoreAck(NamedTuple):
    """The answer to a `store`."""

    offset: int
    """Offset of the message; of the first one, if this is a duplicate."""
    duplicate: bool
    """A message was stored under the same store id before, and this one was not."""


class Page(NamedTuple):
    """One read from a stream."""

    messages: list[Stored]
    """Oldest first."""
    more: int
    """How many further stored messages match the same read."""


class Epoch(NamedTuple):
    """The life of a stream in which its offsets mean one thing: no offset is given to two messages in one epoch.

    It ends when the stream is recreated, and each time the embedded server starts: it may have started from an older
    copy of its store. What earlier epochs had in common with this one remains valid (docs: ADR 0016).
    """

    name: str
    """Begins with a name of the stream's creation, up to the first dot."""
    earlier: Mapping[str, int] = {}
    """Name of an earlier epoch -> the last of its offsets that still stands for the same message."""

    def covers(self, name: str | None, offset: int) -> bool:
        """Whether a position of the epoch `name` is one of this epoch, too. None: not known, and not checked."""
        return name is None or name == self.name or offset <= self.earlier.get(name, -1)

    def went_back_from(self, name: str, offset: int) -> bool:
        """Whether the stream is an older copy of what it was when it had reached an offset of the epoch `name`, rather
        than recreated: what was known then may never have been.
        """
        is_same_stream = self.name.partition(".")[0] == name.partition(".")[0]
        return is_same_stream and not self.covers(name, offset)


class StreamState(NamedTuple):
    """What the stream of a durable namespace holds at one moment."""

    epoch: Epoch
    first: int
    """Offset of the oldest message it still holds; last + 1 if it is empty."""
    last: int
    """Offset of the newest message it ever held; 0 if there was none."""
    first_time: float
    """When the oldest message it still holds was stored, in Unix seconds; infinity if it is empty."""
    size: int
    """Bytes it holds."""


class KvEntry(NamedTuple):
    """A value in a bucket."""

    value: bytes
    revision: int
    """Grows with every write to the bucket; 0 stands for a key that does not exist."""
    time: str
    """When it was written, by the clock of the store, RFC 3339."""
