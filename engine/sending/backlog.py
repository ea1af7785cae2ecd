"""The backlog: what a slow connection has not been sent yet. It exists only while the connection is slow.

Plain frames (answers, pings, gaps) are kept as they are and never left out. Channel messages are kept one by one: a
newer one replaces an older one of the same conflation key, an expired one is left out, an urgent one goes first, and
where the namespace says so messages are dropped and counted. Leaving out a durable message would look like a hole to
the client, so the next one of its channel is encoded again to follow on what was really sent. So it is if the one that
was left out would have told the client of an epoch.

Everything waits in a queue, where it can still be replaced or expire, until it is settled: moved to the sending side,
where it is only bytes.
"""

from collections import deque

import msgspec

from fanline.engine.namespaces import Namespace, SlowPolicy
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage, is_expired, is_urgent
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.notices import GapData, GapReason

_REPLACED_ALLOWED = 64  # replaced messages that keep their places before the queue is tidied
_SETTLE_BYTES = 256 * 1024  # settled at a time

_Key = tuple[str, str]


class _Queued:
    """A message in the queue. When a newer one replaces it, its place stays and is passed over."""

    __slots__ = ("encoding", "key", "message", "urgent")

    def __init__(self, message: EncodedMessage, batch: EncodedBatch) -> None:
        self.message: EncodedMessage | None = message
        self.encoding = batch.encoding
        self.key = _conflation_key(message.envelope, batch.namespace)
        self.urgent = is_urgent(message.envelope, batch.namespace)


class Backlog:
    """Bytes and messages in order. `waiting` and `count` are what a bound is held against: what a client was sent in
    one piece before it became slow does not count, however large it was.
    """

    __slots__ = (
        "_begun",
        "_chain",
        "_dropped",
        "_newest",
        "_queue",
        "_replaced",
        "_sending",
        "_untold",
        "_urgent",
        "count",
        "size",
    )

    def __init__(self, begun: memoryview) -> None:
        self._sending: deque[bytes | memoryview] = deque((begun,))
        self._queue: deque[_Queued | bytes] = deque()
        self._urgent: deque[_Queued] = deque()
        self._newest: dict[_Key, _Queued] = {}  # conflation key -> the queued message that a newer one would replace
        self._replaced = 0  # places in the queue whose message was replaced
        self._chain: dict[str, int] = {}  # durable channel -> offset of the message sent last
        self._untold: dict[str, str] = {}  # durable channel -> its epoch, named by a message that was left out
        self._dropped: dict[tuple[str, Encoding], int] = {}
        self._begun = len(begun)
        self.size = len(begun)
        """Bytes not sent yet."""
        self.count = 1
        """Messages and frames not sent yet."""

    @property
    def waiting(self) -> int:
        """Bytes queued beyond those of the batch that did not fit."""
        return self.size - self._begun

    # --- in -----------------------------------------------------------------------------------------------------

    def add(self, frames: bytes) -> None:
        """Queue frames that must not be left out."""
        self._queue.append(frames)
        self._count(len(frames), 1)

    def add_batch(self, batch: EncodedBatch) -> None:
        """Queue channel messages; those with a key replace older ones."""
        for message in batch.messages:
            entry = _Queued(message, batch)
            if entry.key is not None:
                self._replace(self._newest.get(entry.key))
                self._newest[entry.key] = entry
            envelope = message.envelope
            if envelope.previous is not None:
                self._chain.setdefault(envelope.channel or "", envelope.previous)
            (self._urgent if entry.urgent else self._queue).append(entry)
            self._count(len(message.frame), 1)

    def drop(self, batch: EncodedBatch) -> None:
        """Leave messages out and count them; a `gap` reports them once there is room."""
        for message in batch.messages:
            key = (message.envelope.channel or "", batch.encoding)
            self._dropped[key] = self._dropped.get(key, 0) + 1

    def cut_short(self, goodbye: bytes) -> None:
        """Drop all but the buffer that has begun to leave (half a frame would break the framing), and add `goodbye`."""
        self._sending = deque([self._sending[0], goodbye] if self._sending else [goodbye])
        self._queue.clear()
        self._urgent.clear()
        self._newest.clear()
        self._dropped.clear()
        self._replaced = 0
        self.size = sum(map(len, self._sending))
        self.count = len(self._sending)

    # --- out ----------------------------------------------------------------------------------------------------

    def buffers(self, most: int, now_ms: int) -> list[bytes | memoryview]:
        """What to send next, at most `most` buffers; [] when nothing is left."""
        if not self._sending:
            self._settle(now_ms)
        return [buffer for buffer, _ in zip(self._sending, range(most), strict=False)]

    def advance(self, sent: int) -> None:
        """The kernel has taken the first `sent` bytes of the buffers."""
        self.size -= sent
        self._begun -= min(sent, self._begun)
        while sent:
            first = self._sending[0]
            if sent < len(first):
                self._sending[0] = memoryview(first)[sent:]
                return
            sent -= len(first)
            self._sending.popleft()
            self.count -= 1

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def _count(self, size: int, number: int) -> None:
        self.size += size
        self.count += number

    def _replace(self, older: _Queued | None) -> None:
        if older is None or older.message is None:
            return
        self._count(-len(older.message.frame), -1)
        older.message = None
        self._replaced += 1
        if self._replaced > self.count + _REPLACED_ALLOWED:
            self._tidy()

    def _tidy(self) -> None:
        """Give up the places of replaced messages, once they are most of the queue."""
        self._queue = deque(entry for entry in self._queue if isinstance(entry, bytes) or entry.message is not None)
        self._urgent = deque(entry for entry in self._urgent if entry.message is not None)
        self._replaced = 0

    def _settle(self, now_ms: int) -> None:
        """Move what goes next to the sending side."""
        settled = 0
        while settled < _SETTLE_BYTES and (self._urgent or self._queue):
            entry = self._urgent.popleft() if self._urgent else self._queue.popleft()
            frame = entry if isinstance(entry, bytes) else self._final_frame(entry, now_ms)
            if frame:
                self._sending.append(frame)
                settled += len(frame)
        if not self._sending:
            self._report_drops(now_ms)

    def _final_frame(self, entry: _Queued, now_ms: int) -> bytes:
        """The frame of a message that is sent now; b"" if it was replaced or has expired."""
        if entry.message is None:
            self._replaced -= 1
            return b""
        if entry.key is not None:
            del self._newest[entry.key]  # too late to be replaced
        frame, envelope = entry.message.frame, entry.message.envelope
        if is_expired(envelope, now_ms):
            self._count(-len(frame), -1)
            if envelope.epoch is not None:
                self._untold[envelope.channel or ""] = envelope.epoch
            return b""
        # An urgent message is out of turn: the chain goes on without it.
        return frame if entry.urgent else self._chained(frame, envelope, entry.encoding)

    def _chained(self, frame: bytes, envelope: Envelope, encoding: Encoding) -> bytes:
        """The frame of a message that follows on what was really sent of its channel."""
        if envelope.previous is None or envelope.channel is None or envelope.offset is None:
            if envelope.type == MessageType.GAP and envelope.data["reason"] == GapReason.EPOCH:
                self._untold.pop(envelope.channel or "", None)  # it tells of another one
            return frame
        follows, self._chain[envelope.channel] = self._chain[envelope.channel], envelope.offset
        epoch = self._untold.pop(envelope.channel, None)
        if follows == envelope.previous and epoch is None:
            return frame
        chained = encoding.encode(msgspec.structs.replace(envelope, previous=follows, epoch=envelope.epoch or epoch))
        self._count(len(chained) - len(frame), 0)
        return chained

    def _report_drops(self, now_ms: int) -> None:
        for (channel, encoding), count in self._dropped.items():
            data = GapData(reason=GapReason.SLOW, count=count).fields()
            frame = encoding.encode(Envelope(MessageType.GAP, channel=channel, data=data, time=now_ms))
            self._sending.append(frame)
            self._count(len(frame), 1)
        self._dropped.clear()


def _conflation_key(envelope: Envelope, namespace: Namespace) -> _Key | None:
    """What a message replaces: its own key, or in a conflating namespace the last one of its sender and event. One that
    tells of an epoch is in its place, and is not replaced.
    """
    if envelope.epoch is not None:
        return None
    if envelope.key is not None:
        return (envelope.channel or "", envelope.key)
    if namespace.slow is SlowPolicy.CONFLATE:
        return (envelope.channel or "", f"{envelope.sender or ''} {envelope.event or ''}")
    return None
