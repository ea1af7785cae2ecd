"""The socket of this server's control process, as a worker uses it: a question in HTTP, and its whole answer.

Questions are bounded in number and in time, both those of clients by plain HTTP and those on the monitor.

A connection carries one question at a time, and is then kept for the next one: to open a connection costs the control
process a third of a cheap call. A kept one may be closed by the other end at the very moment at which it is used. The
kernel then shows whether the question was read (unix_release_sock in net/unix/af_unix.c): if it was not, the connection
is reset, and the question is asked again on a new one; if it was, the connection just ends, and nothing is repeated.
"""

import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import trio

from fanline.engine.limits import Limit, LimitHits
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.transport import receive, send_all
from fanline.protocol.errors import HttpError
from fanline.protocol.http.forwarding import AnswerReader
from fanline.protocol.unix_socket import socket_address

_READ_SIZE = 65_536
AGAIN = (("Retry-After", "1"),)
KEPT_SECONDS = 5.0
"""For which a connection is kept without a question. The control process keeps it for longer."""
_MOST_KEPT = 16
_SHORT = 16 * 1024
"""Bytes of a question that is sent, and read, as one piece. One that is longer gets a connection of its own: it may be
answered before it was read to its end.
"""

OnData = Callable[[int], None]
"""Called with the bytes that have been read of an answer, so far; HttpError if they are too many."""


class _Kept(NamedTuple):
    """A connection without a question."""

    sock: socket.socket
    since: float


class ControlSocket:
    """Of one worker. `path`: of the socket; "" if there is none."""

    def __init__(self, path: str, settings: EngineSettings, hits: LimitHits) -> None:
        self._path = path
        self._most = settings.forwarded_requests
        self.seconds = settings.forward_timeout
        self._hits = hits
        self._under_way = 0
        self._kept: deque[_Kept] = deque()  # the longest first

    async def run(self) -> NoReturn:
        """Close connections that are no longer used, for ever; all of them when cancelled."""
        try:
            while True:
                await trio.sleep(KEPT_SECONDS)
                self._close_kept(trio.current_time() - KEPT_SECONDS)
        finally:
            self._close_kept(float("inf"))

    def check(self) -> None:
        """HttpError 404 if the settings want no control process."""
        if not self._path:
            raise HttpError(404, "this server has no control process: the setting `control` is false")

    async def ask(self, question: bytes, reader: AnswerReader, on_data: OnData) -> None:
        """Read the whole answer to a request. HttpError 503."""
        if self._under_way >= self._most:
            self._hits.hit(Limit.FORWARDED)
            raise HttpError(503, f"this worker waits for {self._most} other answers of the control process", AGAIN)
        self._under_way += 1
        self._hits.counters.forwarded += 1
        try:
            with trio.fail_after(self.seconds):
                await self._ask(question, reader, on_data)
        except trio.TooSlowError:
            raise HttpError(503, f"the control process has not answered for {self.seconds:g} s", AGAIN) from None
        except BlockingIOError:
            raise HttpError(503, "the control process has more requests than it can take", AGAIN) from None
        except OSError:
            raise HttpError(503, "the control process is not there; it is about to be started", AGAIN) from None
        finally:
            self._under_way -= 1
        if not reader.whole:
            raise HttpError(503, "the control process ended while it answered; it may have done what was asked", AGAIN)

    async def _ask(self, question: bytes, reader: AnswerReader, on_data: OnData) -> None:
        while len(question) <= _SHORT and (sock := self._take_kept()) is not None:
            try:
                await self._exchange(sock, question, reader, on_data)
            except (BrokenPipeError, ConnectionResetError):
                if reader.data:
                    raise
            else:
                return
        await self._exchange(self._connect(), question, reader, on_data)

    async def _exchange(self, sock: socket.socket, question: bytes, reader: AnswerReader, on_data: OnData) -> None:
        try:
            await send_all(sock, memoryview(question))
            while not reader.whole and (data := await receive(sock, _READ_SIZE)):
                on_data(len(data))
                reader.feed(data)
        except BaseException:
            sock.close()
            raise
        if reader.leaves_open and len(question) <= _SHORT and len(self._kept) < _MOST_KEPT:
            self._kept.append(_Kept(sock, trio.current_time()))
        else:
            sock.close()

    def _connect(self) -> socket.socket:
        """At once; BlockingIOError if too many wait to be accepted (man 2 connect), OSError."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            with socket_address(self._path) as address:
                sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    def _take_kept(self) -> socket.socket | None:
        """A connection that can be used; None if there is none."""
        while self._kept:
            sock = self._kept.popleft().sock
            if _is_silent(sock):
                return sock
            sock.close()
        return None

    def _close_kept(self, until: float) -> None:
        """Close those that have not been used since `until`."""
        while self._kept and self._kept[0].since <= until:
            self._kept.popleft().sock.close()


def _is_silent(sock: socket.socket) -> bool:
    """Whether the other end has neither closed a connection nor sent unrequested data."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
