"""The Unix socket on which `fanline run` serves its command, and nobody else: for this task alone, without any right in
NATS.

Whatever comes in harms no one but its sender: a line that is no request is refused, one that is too long ends its
connection, a client that does not read its replies loses it, and connections beyond a bound wait until one is closed.
"""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

import trio

from fanline.base.socket_directory import SocketDirectory
from fanline.cli.run.child_reports import ChildReports
from fanline.cli.run.requests import (
    MAX_LINE_BYTES,
    AskRequest,
    BadRequest,
    Request,
    RequestId,
    read_request,
    reply_ok,
    reply_refused,
)
from fanline.producer.calls import AskExpired

MAX_CONNECTIONS = 128
MAX_QUESTIONS = 16
"""Waiting on one connection."""
SEND_SECONDS = 5.0
"""How long a client may leave a reply unread."""
_CHUNK_BYTES = 1 << 16
FINISH_SECONDS = 2.0
"""How long the end of the command waits for what it has sent to be carried out."""
_HANGUP_SECONDS = 0.5
_ERROR_SECONDS = 0.1


class ListeningSocket:
    """A listening socket that only this user can connect to. Raises OSError."""

    def __init__(self) -> None:
        self._directory = SocketDirectory()
        self.path = self._directory.socket_path
        self._socket = socket.socket(socket.AF_UNIX)
        self._patience = _Patience()
        self._served = trio.Event()
        try:
            self._socket.bind(self.path)
            Path(self.path).chmod(0o600)
            self._socket.listen(MAX_CONNECTIONS)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Leave nothing behind."""
        self._socket.close()
        self._directory.close()

    async def serve(self, reports: ChildReports) -> None:
        """Serve until cancelled, or until all is carried out after `finish`."""
        listener = trio.socket.from_stdlib_socket(self._socket)
        room = trio.Semaphore(MAX_CONNECTIONS)

        async def serve_one(connection: trio.socket.SocketType) -> None:
            try:
                await _Connection(connection, reports, self._patience).serve()
            finally:
                room.release()

        async with trio.open_nursery() as nursery:
            await room.acquire()
            while (connection := await self._accept(listener)) is not None:
                nursery.start_soon(serve_one, connection)
                await room.acquire()
        self._served.set()

    async def finish(self) -> None:
        """The command has ended. Carry out what it has sent: programs that only report wait for no reply."""
        self._patience.end()
        with trio.move_on_after(FINISH_SECONDS):
            await self._served.wait()

    async def _accept(self, listener: trio.socket.SocketType) -> trio.socket.SocketType | None:
        """The next connection; None if the command has ended, and none is left."""
        while True:
            try:
                with self._patience.wait():
                    return (await listener.accept())[0]
                return trio.socket.from_stdlib_socket(self._socket.accept()[0])
            except BlockingIOError:
                return None
            except OSError:  # too many open files, or the client has gone
                await trio.sleep(_ERROR_SECONDS)


class _Patience:
    """Whether anything more is waited for. Once that is over, only what has come already is taken."""

    def __init__(self) -> None:
        self.over = False
        self._waits = WeakSet[trio.CancelScope]()

    def end(self) -> None:
        self.over = True
        for scope in self._waits:
            scope.cancel()

    def wait(self) -> trio.CancelScope:
        """For a block that is left when nothing more is waited for."""
        scope = trio.CancelScope()
        self._waits.add(scope)
        if self.over:
            scope.cancel()
        return scope


class _Connection:
    """One client."""

    def __init__(self, connection: trio.socket.SocketType, reports: ChildReports, patience: _Patience) -> None:
        self._socket = connection
        self._patience = patience
        self._stream = trio.SocketStream(connection)
        self._reports = reports
        self._sending = trio.Lock()
        self._questions = 0

    async def serve(self) -> None:
        """Until the client has closed it, and has its answers."""
        async with self._stream, trio.open_nursery() as nursery:
            try:
                lines = _Lines()
                while data := await self._receive():
                    for line in lines.feed(data):
                        await self._handle(line, nursery)
                await self._handle(lines.rest, nursery)
                nursery.start_soon(self._leave_when_hung_up, nursery.cancel_scope)
            except _Gone:
                nursery.cancel_scope.cancel()
            except BadRequest as error:
                with suppress(_Gone):
                    await self._refuse(error.id, "bad_request", str(error))
                nursery.cancel_scope.cancel()

    async def _receive(self) -> bytes:
        try:
            with self._patience.wait():
                return bytes(await self._stream.receive_some(_CHUNK_BYTES))
            await trio.lowlevel.checkpoint()
            return os.read(self._socket.fileno(), _CHUNK_BYTES)
        except (trio.BrokenResourceError, OSError):  # it has gone, or has sent nothing more in time
            return b""

    async def _handle(self, line: bytes, nursery: trio.Nursery) -> None:
        if not line.strip():
            return
        try:
            request = read_request(line)
        except BadRequest as error:
            await self._refuse(error.id, "bad_request", str(error))
            return
        if not isinstance(request, AskRequest):
            await self._apply(request)
        elif self._questions >= MAX_QUESTIONS:
            await self._refuse(request.id, "bad_request", f"{MAX_QUESTIONS} questions are waiting on this connection")
        else:
            self._questions += 1
            nursery.start_soon(self._ask, request, nursery.cancel_scope)

    async def _apply(self, request: Request) -> None:
        try:
            self._reports.apply(request)
        except (TypeError, ValueError) as error:
            await self._refuse(request.id, "bad_request", str(error))
        else:
            if request.id is not None:
                await self._send(reply_ok(request.id))

    async def _ask(self, request: AskRequest, scope: trio.CancelScope) -> None:
        try:
            reply = reply_ok(request.id, **await self._reports.ask(request))
        except AskExpired as error:
            reply = reply_refused(request.id, "expired", str(error))
        except (TypeError, ValueError) as error:
            reply = reply_refused(request.id, "bad_request", str(error))
        self._questions -= 1
        try:
            await self._send(reply)
        except _Gone:
            scope.cancel()

    async def _leave_when_hung_up(self, scope: trio.CancelScope) -> None:
        """The client has sent its last line. Wait with it for its answers, but no longer than it does."""
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)  # a hang-up is always reported
        while self._questions and not self._patience.over and not poll.poll(0):  # noqa: ASYNC110  # Trio waits for no hang-up
            await trio.sleep(_HANGUP_SECONDS)
        if self._questions:
            scope.cancel()

    async def _refuse(self, request_id: RequestId, code: str, message: str) -> None:
        await self._send(reply_refused(request_id, code, message))

    async def _send(self, reply: bytes) -> None:
        """Raises _Gone if the client does not take it."""
        try:
            with trio.fail_after(SEND_SECONDS):
                async with self._sending:
                    await self._stream.send_all(reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise _Gone from None


class _Gone(Exception):  # noqa: N818  # reads as what happened
    """The client has closed its end, or reads no replies."""


class _Lines:
    """Bytes in chunks of any size, as lines. What no newline ends is the rest."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that this chunk completes. Raises BadRequest where one is too long: nothing is understood then."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in (*lines, self.rest):
            if len(line) > MAX_LINE_BYTES:
                raise BadRequest(f"a line has more than {MAX_LINE_BYTES} bytes")
        yield from lines
