"""The outbox: everything a connection is sent goes through it, and no sender ever waits for a slow client.

While the kernel accepts everything, a push is one non-blocking `send` and nothing is stored. What the kernel does not
accept goes to a backlog (backlog.py), and only then does a drain task exist. The backlog is bounded in bytes and
in messages; over the bound the namespace's policy decides: the connection ends with 4008, or messages are dropped.
"""

import socket

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import OnFault
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.namespaces import SlowPolicy
from fanline.engine.sending.backlog import Backlog
from fanline.engine.sending.batch import EncodedBatch
from fanline.engine.sending.life import Life, LifeState
from fanline.engine.sockets.transport import WOULD_BLOCK, can_gather
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import encode_close

_OPEN = LifeState.OPEN  # looked up at every push
_DRAIN_PARTS = 64  # buffers in one sendmsg; Linux takes at most 1024


class OutboxShared:
    """What all outboxes of a worker share, so that each one stays small."""

    __slots__ = ("counters", "hits", "max_bytes", "max_messages", "nursery", "on_fault")

    def __init__(
        self,
        nursery: trio.Nursery,
        counters: Counters,
        hits: LimitHits | None = None,
        *,
        max_bytes: int,
        max_messages: int,
        on_fault: OnFault = lambda subject, what: None,
    ) -> None:
        self.nursery = nursery
        self.counters = counters
        self.hits = hits or LimitHits(counters)
        self.on_fault = on_fault
        self.max_bytes = max_bytes
        self.max_messages = max_messages


class Outbox:
    """The sending half of one connection. Everything is synchronous but the drain task; it ends the connection through
    `life`, never by raising.
    """

    __slots__ = ("_backlog", "_drained", "_shared", "_socket", "answered", "life", "subscriptions", "user")

    def __init__(self, sock: socket.socket, life: Life, shared: OutboxShared) -> None:
        self._socket = sock
        self._shared = shared
        self._backlog: Backlog | None = None  # None: nothing is queued, send directly
        self._drained: trio.Event | None = None  # made by the task that waits for it
        self.life = life
        self.answered = 0
        """Bytes of the answers since the connection last charged them; kept by those who answer."""
        self.subscriptions = 0
        """How many channels push here; kept by the groups of the hub, read by the flusher."""
        self.user: str | None = None
        """The user of the connection, if known; kept by the session."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""
        return 0 if self._backlog is None else self._backlog.size

    @property
    def backlog_messages(self) -> int:
        """The same in messages and frames."""
        return 0 if self._backlog is None else self._backlog.count

    def push(self, data: bytes, batch: EncodedBatch | None = None) -> None:
        """Send or queue whole frames. Never blocks, never raises; an overflow ends the connection with 4008.

        `batch`: the channel messages that `data` is made of; without them it is an answer that must not be left out.
        """
        if self._backlog is not None or self.life.state is not _OPEN:
            self._enqueue(data, batch)
            return
        try:
            sent = self._socket.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.life.lose()
            return
        if sent != len(data):
            self._start_backlog(data, sent)

    def push_parts(self, parts: list[tuple[bytes, EncodedBatch]]) -> None:
        """Push the batches of several channels with one system call."""
        if not parts:
            return
        queued = self._backlog is not None or self.life.state is not _OPEN
        if queued or len(parts) > _DRAIN_PARTS or not can_gather(self._socket):
            for data, batch in parts:
                self.push(data, batch)
            return
        try:
            sent = self._socket.sendmsg([data for data, _ in parts])
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self.life.lose()
            return
        for data, batch in parts:
            if sent < len(data):
                if self._backlog is None:
                    self._start_backlog(data, sent)
                else:
                    self._enqueue(data, batch)
            sent = max(0, sent - len(data))

    def finish(self, reason: CloseReason, text: str | None = None) -> None:
        """Send a close frame after what is queued; nothing follows it. Idempotent: the first reason stands."""
        if self.life.state is _OPEN:
            self.push(encode_close(reason, text))
            self.life.close(reason)

    def answer_close(self, frame: bytes) -> None:
        """The client's close frame has arrived; `frame` is the answer, unless ours is already on its way."""
        if self.life.state is _OPEN:
            self.push(frame)
        self.life.part()

    async def wait_drained(self) -> None:
        """Wait until the kernel has taken everything that was queued."""
        if self._backlog is not None:
            self._drained = trio.Event()
            await self._drained.wait()

    def _enqueue(self, data: bytes, batch: EncodedBatch | None) -> None:
        backlog, shared = self._backlog, self._shared
        if self.life.state is not _OPEN or backlog is None:
            return
        try:
            self._add(backlog, shared, data, batch)
        except Exception:  # noqa: BLE001  # our own fault; the client comes back and resumes
            self._fail()

    def _add(self, backlog: Backlog, shared: OutboxShared, data: bytes, batch: EncodedBatch | None) -> None:
        if batch is None:
            backlog.add(data)
        elif batch.namespace.slow is SlowPolicy.DROP and self._is_full(backlog, len(data), len(batch.messages)):
            shared.counters.dropped += len(batch.messages)
            backlog.drop(batch)
            return
        else:
            backlog.add_batch(batch)
        if self._is_full(backlog, 0, 0):
            self._overflow(backlog)

    def _is_full(self, backlog: Backlog, size: int, count: int) -> bool:
        """Whether the backlog has no room for `count` messages of `size` bytes."""
        shared = self._shared
        return backlog.waiting + size > shared.max_bytes or backlog.count + count > shared.max_messages

    def _start_backlog(self, data: bytes, sent: int) -> None:
        self._backlog = Backlog(memoryview(data)[sent:])
        self._shared.nursery.start_soon(self._drain, name="drain")

    def _overflow(self, backlog: Backlog) -> None:
        self._shared.hits.hit(Limit.OUTBOX)
        backlog.cut_short(encode_close(CloseReason.SLOW))
        self.life.close(CloseReason.SLOW)
        self.life.expire()

    def _fail(self) -> None:
        self._shared.on_fault("the backlog of a connection", "it cannot be kept or sent; the connection ends")
        self.life.lose()

    async def _drain(self) -> None:
        """Send the backlog as the kernel takes it; ends with it, or with the socket."""
        assert self._backlog is not None
        try:
            await self._send_backlog(self._backlog)
        except Exception:  # noqa: BLE001  # our own fault; the client comes back and resumes
            self._fail()
        self._backlog = None
        if self._drained is not None:
            self._drained.set()

    async def _send_backlog(self, backlog: Backlog) -> None:
        most = _DRAIN_PARTS if can_gather(self._socket) else 1
        # The connection may end, and close its socket, before this task has run for the first time.
        while self._socket.fileno() >= 0 and backlog.buffers(most, unix_ms()):
            try:
                await trio.lowlevel.wait_writable(self._socket)
                buffers = backlog.buffers(most, 0)  # it may have been cut short meanwhile
                sent = self._socket.sendmsg(buffers) if most > 1 else self._socket.send(buffers[0])
            except WOULD_BLOCK:
                continue
            except (OSError, trio.ClosedResourceError):
                self.life.lose()
                break
            backlog.advance(sent)
