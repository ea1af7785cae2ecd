"""The backlog: what a slow connection has not been sent yet. It exists only while the connection is slow.

Plain frames (answers, pings, gaps) are kept as they are and never left out. Channel messages are kept one by one: a
newer one takes the place of an older one of the same conflation key, an expired one is left out, an urgent one goes
first, and where a namespace says so they are dropped and counted. Leaving out a durable message would look like a hole
to the client, so the next one of its channel is encoded anew to follow on what was really sent.
"""

from collections import deque
from typing import NamedTuple

import msgspec

from fanline.engine.namespaces import SlowPolicy
from fanline.protocol.channels import namespace_of
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType

URGENT = 8
"""Priority from which on a message of the `system` namespace passes all others, and reaches everybody."""
_DEAD_ALLOWED = 64  # places that have given way, or keys of what was sent, kept before the queue is tidied
_TAKE_BYTES = 256 * 1024  # moved to the sending side at a time; what is there can no longer give way


class EncodedMessage(NamedTuple):
    """One channel message and its frame, both shared by everybody in one encoding."""

    frame: bytes
    envelope: Envelope


class EncodedBatch(NamedTuple):
    """The messages of one batch: their joined frames are what a fast connection is sent."""

    items: list[EncodedMessage]
    encoding: Encoding
    policy: SlowPolicy


class _Waiting:
    """An item in the queue; its place stays when the item has given way."""

    __slots__ = ("encoding", "item")

    def __init__(self, item: EncodedMessage, encoding: Encoding) -> None:
        self.item: EncodedMessage | None = item
        self.encoding = encoding


class Backlog:
    """Bytes and messages in order. `waiting` and `count` are what a bound is held against: what a client was sent in
    one piece before it became slow does not count, however large it was.
    """

    __slots__ = ("_begun", "_dead", "_dropped", "_follows", "_latest", "_queue", "_sending", "_urgent", "count", "size")

    def __init__(self, begun: memoryview) -> None:
        self._sending: deque[bytes | memoryview] = deque((begun,))
        self._queue: deque[_Waiting | bytes] = deque()
        self._urgent: deque[_Waiting] = deque()
        self._latest: dict[tuple[str, str], _Waiting] = {}
        self._follows: dict[str, int] = {}  # durable channel -> offset of what was sent last
        self._dropped: dict[tuple[str, Encoding], int] = {}
        self._dead = 0  # places in the queue whose item has given way
        self._begun = len(begun)
        self.size = len(begun)
        self.count = 1

    @property
    def waiting(self) -> int:
        """Bytes queued beyond those of the batch that did not fit."""
        return self.size - self._begun

    def add(self, frames: bytes) -> None:
        """Queue frames that must not be left out."""
        self._queue.append(frames)
        self.size += len(frames)
        self.count += 1

    def add_items(self, batch: EncodedBatch) -> None:
        """Queue channel messages; those with a key take the place of older ones."""
        for item in batch.items:
            envelope = item.envelope
            waiting = _Waiting(item, batch.encoding)
            key = _conflation_key(envelope, batch.policy)
            if key is not None:
                self._give_way(self._latest.get(key))
                self._latest[key] = waiting
            if envelope.previous is not None:
                self._follows.setdefault(envelope.channel or "", envelope.previous)
            (self._urgent if is_urgent(envelope) else self._queue).append(waiting)
            self.size += len(item.frame)
            self.count += 1

    def drop(self, batch: EncodedBatch) -> None:
        """Leave messages out and count them, to be told once there is room."""
        for item in batch.items:
            position = (item.envelope.channel or "", batch.encoding)
            self._dropped[position] = self._dropped.get(position, 0) + 1

    def buffers(self, most: int, now_ms: int) -> list[bytes | memoryview]:
        """What to send next, at most so many buffers; [] when nothing is left."""
        if not self._sending:
            self._take(now_ms)
        return [buffer for buffer, _ in zip(self._sending, range(most), strict=False)]

    def advance(self, sent: int) -> None:
        """So many bytes of the buffers are gone."""
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

    def cut_short(self, goodbye: bytes) -> None:
        """Drop all but the buffer that has begun to leave (half a frame would break the framing), and add `goodbye`."""
        self._sending = deque([self._sending[0], goodbye] if self._sending else [goodbye])
        self._queue.clear()
        self._urgent.clear()
        self._latest.clear()
        self._dropped.clear()
        self.size = sum(map(len, self._sending))
        self.count = len(self._sending)

    def _give_way(self, waiting: "_Waiting | None") -> None:
        if waiting is not None and waiting.item is not None:
            self.size -= len(waiting.item.frame)
            self.count -= 1
            waiting.item = None
            self._dead += 1
            if self._dead > self.count + _DEAD_ALLOWED:
                self._bury()

    def _bury(self) -> None:
        """Forget places that have given way, once they are most of the queue."""
        self._queue = deque(entry for entry in self._queue if isinstance(entry, bytes) or entry.item is not None)
        self._latest = {key: waiting for key, waiting in self._latest.items() if waiting.item is not None}
        self._dead = 0

    def _take(self, now_ms: int) -> None:
        """Settle what goes next: from here on it is only bytes."""
        taken = 0
        while taken < _TAKE_BYTES and (self._urgent or self._queue):
            entry = self._urgent.popleft() if self._urgent else self._queue.popleft()
            frame = entry if isinstance(entry, bytes) else self._settle(entry, now_ms)
            if frame:
                self._sending.append(frame)
                taken += len(frame)
        if self._dead > self.count + _DEAD_ALLOWED:
            self._bury()
        if not self._sending:
            for (channel, encoding), count in self._dropped.items():
                self._sending.append(_told(channel, encoding, count))
                self.size += len(self._sending[-1])
                self.count += 1
            self._dropped.clear()

    def _settle(self, waiting: _Waiting, now_ms: int) -> bytes:
        """The frame of a message that is sent now; b"" if it has given way or expired."""
        if waiting.item is None:
            self._dead -= 1
            return b""
        frame, envelope = waiting.item
        waiting.item = None  # on its way: too late to give way
        self._dead += 1  # its key is still known
        if is_expired(envelope, now_ms):
            self.size -= len(frame)
            self.count -= 1
            return b""
        if envelope.previous is None or envelope.channel is None or envelope.offset is None:
            return frame
        if is_urgent(envelope):
            return frame  # out of turn: the chain goes on without it
        follows, self._follows[envelope.channel] = self._follows[envelope.channel], envelope.offset
        if follows == envelope.previous:
            return frame
        anew = waiting.encoding.encode(msgspec.structs.replace(envelope, previous=follows))
        self.size += len(anew) - len(frame)
        return anew


def is_urgent(envelope: Envelope) -> bool:
    """Whether a message passes all others and reaches everybody."""
    return (envelope.priority or 0) >= URGENT and namespace_of(envelope.channel or "") == "system"


def is_expired(envelope: Envelope, now_ms: int) -> bool:
    """Whether a message has outlived its own `ttl`."""
    return envelope.ttl is not None and (envelope.time or 0) + envelope.ttl * 1000 < now_ms


def _conflation_key(envelope: Envelope, policy: SlowPolicy) -> tuple[str, str] | None:
    """What a message replaces: its own key, or in a conflating namespace the last one of its sender and event."""
    if envelope.key is not None:
        return (envelope.channel or "", envelope.key)
    if policy is SlowPolicy.CONFLATE:
        return (envelope.channel or "", f"{envelope.sender or ''} {envelope.event or ''}")
    return None


def _told(channel: str, encoding: Encoding, count: int) -> bytes:
    return encoding.encode(Envelope(MessageType.GAP, channel=channel, data={"reason": "slow", "count": count}))
