"""One connection: a task, a cancel scope and a socket. The scope's deadline is the liveness check, moved on every read.

Idle, a connection keeps no parser, no buffer and no second task. Every way to its end goes through `_part`, which sends
the close frame, and nothing that goes wrong here reaches another connection.
"""

import logging
import socket

import trio

from fanline.engine.connections.handshake import Opened
from fanline.engine.sending.outbox import Outbox
from fanline.engine.sending.transport import WOULD_BLOCK, can_gather, end_sending, has_buffered
from fanline.engine.sessions.context import Context
from fanline.engine.sessions.session import Session
from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_frame

_READ_SIZE = 4096  # most client messages are small commands; a larger one takes several reads
_log = logging.getLogger("fanline.connection")


class Connection:
    __slots__ = ("_context", "_goodbye", "_reader", "_socket", "beat", "outbox", "scope", "session")

    def __init__(self, sock: socket.socket, opened: Opened, context: Context) -> None:
        self._socket = sock
        self._context = context
        self._reader: FrameReader | None = None  # only while a message is incomplete
        self._goodbye = False  # the client's close frame has come: the last thing it says
        self.scope = trio.CancelScope()
        self.outbox = Outbox(sock, self.scope, context.outboxes)
        self.session = Session(context, opened.encoding, opened.identity, self.outbox)
        self.beat = 0
        """The heartbeat's mark: which slice of the wheel this connection is on."""

    async def run(self, rest: bytes) -> None:
        """Serve the client until one side ends it; `rest` is what came with the handshake."""
        try:
            self.session.welcome()
            self.scope.deadline = trio.current_time() + self._context.settings.idle_timeout
            with self.scope:
                if rest:
                    await self._feed(rest)
                await self._read()
        except Exception:  # noqa: BLE001  # the edge of one connection: logged once, nobody else notices
            _log.exception("session %s failed", self.session.id)
            self.outbox.finish(CloseReason.INTERNAL)
        finally:
            self.session.end()
        await self._part()

    def close(self, reason: CloseReason) -> None:
        """End the connection from our side: a close frame, then up to `close_timeout` for the client to take it."""
        self.outbox.finish(reason)
        self.scope.cancel()

    async def _read(self) -> None:
        while self.outbox.closing is None:
            if not has_buffered(self._socket):
                await trio.lowlevel.wait_readable(self._socket)
            data = self._receive()
            if data:
                await self._feed(data)
            del data  # not kept while waiting for the next

    def _receive(self) -> bytes:
        """What has come, b"" if nothing has; the end of the stream ends the connection."""
        try:
            data = self._socket.recv(_READ_SIZE)
        except WOULD_BLOCK:
            return b""
        except OSError:
            data = b""
        if not data:
            self.outbox.lose()
        return data

    async def _feed(self, data: bytes) -> None:
        settings = self._context.settings
        reader = self._reader or FrameReader(settings.max_message_bytes, deflated=self.session.encoding.deflated)
        try:
            for message in reader.feed(data):
                await self._take(message)
                self.scope.deadline = max(self.scope.deadline, trio.current_time() + settings.idle_timeout)
        except FrameError as error:
            if self.outbox.closing is None:
                self._context.counters.broken_closed += 1
                self.outbox.finish(error.reason, str(error))
        self._reader = None if reader.idle else reader

    async def _take(self, message: WebSocketMessage) -> None:
        if message.opcode is Opcode.CLOSE:
            self._goodbye = True
            decode_close(message.payload)  # refuses codes that may not be sent
            self.outbox.answer_close(encode_frame(Opcode.CLOSE, message.payload[:2]))
        elif self.outbox.closing is not None or message.opcode is Opcode.PONG:
            return
        elif message.opcode is Opcode.PING:
            self.outbox.push(encode_frame(Opcode.PONG, message.payload))
        elif message.opcode is self.session.encoding.dialect.opcode:
            await self.session.handle(message.payload)
        else:
            name = self.session.encoding.dialect.name
            raise FrameError(CloseReason.UNSUPPORTED_DATA, f"dialect {name} takes no such message")

    async def _part(self) -> None:
        """Say why, and give the client `close_timeout` to read it and to say goodbye (RFC 6455 section 7.1.1)."""
        if self.outbox.closing is None:  # the scope's deadline passed
            self._context.counters.silent_closed += 1
            self.outbox.finish(CloseReason.SILENT)
        with trio.move_on_after(self._context.settings.close_timeout):
            if self.outbox.lost:
                return
            await self.outbox.wait_drained()
            if can_gather(self._socket):  # TLS could not be read any more after it
                end_sending(self._socket)
            while not self._goodbye and not self.outbox.lost:
                if not has_buffered(self._socket):
                    await trio.lowlevel.wait_readable(self._socket)
                await self._feed(self._receive())
