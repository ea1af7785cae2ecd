"""The outbox: everything a connection is sent goes through `push`, and nobody ever waits for a slow peer.

While the kernel takes what it is given, a push is one non-blocking `send` and nothing is stored. What the kernel
refuses is queued, and only then a drain task exists. The queue is bounded in bytes and in batches; over the bound the
outbox drops what has not begun to leave, says why in a close frame, and ends.
"""

import socket
from collections import deque
from itertools import islice

import trio

from engine.counters import Counters
from engine.transport import WOULD_BLOCK, can_gather
from protocol.errors import CloseReason
from protocol.frames import encode_close

_DRAIN_PARTS = 64  # buffers in one sendmsg; Linux takes at most 1024


class OutboxShared:
    """What all outboxes of a worker share, so that each one stays small."""

    __slots__ = ("counters", "max_batches", "max_bytes", "nursery")

    def __init__(self, nursery: trio.Nursery, counters: Counters, *, max_bytes: int, max_batches: int) -> None:
        self.nursery = nursery
        self.counters = counters
        self.max_bytes = max_bytes
        self.max_batches = max_batches


class Outbox:
    """The sending half of one connection. Everything is synchronous but the drain task.

    `scope` is the connection's cancel scope: the outbox ends the connection by cancelling it, never by raising.
    """

    __slots__ = ("_backlog", "_drained", "_queued", "_scope", "_shared", "_socket", "closing", "subscriptions")

    def __init__(self, sock: socket.socket, scope: trio.CancelScope, shared: OutboxShared) -> None:
        self._socket = sock
        self._scope = scope
        self._shared = shared
        self._backlog: deque[bytes | memoryview] | None = None  # None: nothing is queued, send directly
        self._queued = 0
        self._drained: trio.Event | None = None  # made by who waits for it
        self.closing: CloseReason | None = None
        """Set once a close frame is on its way, or to ABNORMAL when the peer is gone: nothing is taken any more."""
        self.subscriptions = 0
        """How many channels push here; kept by the hub, read by the flusher."""

    @property
    def lost(self) -> bool:
        """The peer is gone without a word."""
        return self.closing is CloseReason.ABNORMAL

    @property
    def backlog_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""
        return self._queued

    def push(self, data: bytes) -> None:
        """Send or queue whole frames. Never blocks, never raises; an overflow ends the connection with 4008."""
        if self._backlog is not None or self.closing is not None:
            self._enqueue(data)
            return
        try:
            sent = self._socket.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.lose()
            return
        if sent != len(data):
            self._start_backlog(data, sent)

    def push_parts(self, parts: list[bytes]) -> None:
        """Push several batches with one system call."""
        queued = self._backlog is not None or self.closing is not None
        if queued or len(parts) > _DRAIN_PARTS or not can_gather(self._socket):
            self.push(b"".join(parts))
            return
        try:
            sent = self._socket.sendmsg(parts)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.lose()
            return
        if sent != sum(map(len, parts)):
            self._start_backlog(b"".join(parts), sent)

    def finish(self, reason: CloseReason, text: str | None = None) -> None:
        """Send a close frame after what is queued; nothing is taken after it. Idempotent: the first reason stands."""
        if self.closing is None:
            self.push(encode_close(reason, text))
            self.closing = self.closing or reason

    def answer_close(self, frame: bytes) -> None:
        """Send back the close frame of a peer that wants to go."""
        if self.closing is None:
            self.push(frame)
            self.closing = self.closing or CloseReason.NORMAL

    def lose(self) -> None:
        """The peer is gone: end the connection without a word."""
        self.closing = CloseReason.ABNORMAL
        self._scope.cancel()

    def postpone(self, seconds: float) -> None:
        """Put the connection's liveness deadline so many seconds from now: the peer has shown that it lives."""
        self._scope.deadline = max(self._scope.deadline, trio.current_time() + seconds)

    async def wait_drained(self) -> None:
        """Wait until the kernel has taken everything that was queued."""
        if self._backlog is not None:
            self._drained = trio.Event()
            await self._drained.wait()

    def _enqueue(self, data: bytes) -> None:
        if self.closing is not None:
            return
        assert self._backlog is not None
        self._backlog.append(data)
        self._queued += len(data)
        if self._queued > self._shared.max_bytes or len(self._backlog) > self._shared.max_batches:
            self._overflow()

    def _start_backlog(self, data: bytes, sent: int) -> None:
        self._backlog = deque((memoryview(data)[sent:],))
        self._queued = len(data) - sent
        self._shared.nursery.start_soon(self._drain, name="drain")

    def _overflow(self) -> None:
        """Keep the batch that has begun to leave, since half a frame would break the framing; the rest gives way."""
        assert self._backlog is not None
        self._shared.counters.slow_closed += 1
        begun = self._backlog[0]
        goodbye = encode_close(CloseReason.SLOW)
        self._backlog = deque((begun, goodbye))
        self._queued = len(begun) + len(goodbye)
        self.closing = CloseReason.SLOW
        self._scope.deadline = trio.current_time()  # the connection's task ends it, after a last chance to drain

    async def _drain(self) -> None:
        """Send the backlog as the kernel takes it; ends with it, or with the socket."""
        while self._backlog:
            try:
                await trio.lowlevel.wait_writable(self._socket)
                self._advance(self._send_backlog())
            except WOULD_BLOCK:
                continue
            except (OSError, trio.ClosedResourceError):
                self.lose()
                break
        self._backlog = None
        self._queued = 0
        if self._drained is not None:
            self._drained.set()

    def _send_backlog(self) -> int:
        assert self._backlog is not None
        if can_gather(self._socket):
            return self._socket.sendmsg(list(islice(self._backlog, _DRAIN_PARTS)))
        return self._socket.send(self._backlog[0])

    def _advance(self, sent: int) -> None:
        """Drop `sent` bytes from the front of the backlog."""
        assert self._backlog is not None
        self._queued -= sent
        while sent:
            first = self._backlog[0]
            if sent < len(first):
                self._backlog[0] = memoryview(first)[sent:]
                return
            sent -= len(first)
            self._backlog.popleft()
