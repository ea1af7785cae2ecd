"""One connection: a task, a cancel scope and a socket. The scope's deadline is the liveness check, moved on every read.

Idle, a connection keeps no parser, no buffer and no second task. Every way to its end goes through `_part`, which sends
the close frame, and nothing that goes wrong here reaches another connection.
"""

import logging
import socket

import trio

from engine.context import Context
from engine.handshake import Opened, part
from engine.outbox import Outbox
from engine.session import Session
from protocol.errors import CloseReason, FrameError
from protocol.frames import FrameReader, Message, Opcode, decode_close, encode_frame

_READ_SIZE = 4096  # most client messages are small commands; a larger one takes several reads
_log = logging.getLogger("fanline.connection")


class Connection:
    __slots__ = ("_context", "_reader", "_socket", "beat", "outbox", "scope", "session")

    def __init__(self, sock: socket.socket, opened: Opened, context: Context) -> None:
        self._socket = sock
        self._context = context
        self._reader: FrameReader | None = None  # only while a message is incomplete
        self.scope = trio.CancelScope()
        self.outbox = Outbox(sock, self.scope, context.outboxes)
        self.session = Session(context, opened.dialect, opened.identity, self.outbox)
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
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self.outbox.lose()
                return
            self.scope.deadline = trio.current_time() + self._context.settings.idle_timeout
            await self._feed(data)
            del data  # not kept while waiting for the next

    async def _feed(self, data: bytes) -> None:
        reader = self._reader or FrameReader(self._context.settings.max_message_bytes)
        try:
            for message in reader.feed(data):
                if self.outbox.closing is not None:
                    return
                await self._take(message)
        except FrameError as error:
            self._context.counters.broken_closed += 1
            self.outbox.finish(error.reason, str(error))
        self._reader = None if reader.idle else reader

    async def _take(self, message: Message) -> None:
        if message.opcode is self.session.dialect.opcode:
            await self.session.handle(message.payload)
        elif message.opcode is Opcode.PING:
            self.outbox.push(encode_frame(Opcode.PONG, message.payload))
        elif message.opcode is Opcode.CLOSE:
            decode_close(message.payload)  # refuses codes that may not be sent
            self.outbox.answer_close(encode_frame(Opcode.CLOSE, message.payload[:2]))
        elif message.opcode is not Opcode.PONG:
            raise FrameError(CloseReason.UNSUPPORTED_DATA, f"dialect {self.session.dialect.name} takes no such message")

    async def _part(self) -> None:
        """Say why, give the client a moment to read it, and let go of the socket's peer."""
        if self.outbox.closing is None:  # the scope's deadline passed
            self._context.counters.silent_closed += 1
            self.outbox.finish(CloseReason.SILENT)
        if self.outbox.closing is CloseReason.ABNORMAL:
            return
        with trio.move_on_after(self._context.settings.close_timeout):
            await self.outbox.wait_drained()
            await part(self._socket, self._context.settings.close_timeout)
