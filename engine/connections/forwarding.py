"""Plain HTTP for the control process: requests that come to a worker's port, passed on to a socket on this machine.

The body is read before anything is passed on, and the answer before anything is sent back. So a slow client costs the
control process nothing, a slow control process holds a bounded number of requests, and an answer of which the end is
missing is never taken for a whole one. Whatever happens here ends with one HTTP answer on one connection.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from fanline.engine.connections.arrivals import Arrival
from fanline.engine.connections.plain_http import part, receive, send_all
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.settings import EngineSettings
from fanline.engine.unix_socket import socket_address
from fanline.protocol.errors import HttpError
from fanline.protocol.http.forwarding import CONTINUE, AnswerReader, check_forwardable, expects_continue, forwarded_head
from fanline.protocol.websocket.addresses import Networks
from fanline.protocol.websocket.handshake import HeadReader, Request

BELOW = ("/api/", "/console/")
"""All that is below these paths is passed on, ..."""
EXACT = frozenset(("/metrics", "/docs"))
"""... and these paths are."""
MAX_BODY_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Of bodies and answers that a worker holds, of all requests."""
_READ_SIZE = 65_536
_AGAIN = (("Retry-After", "1"),)

Hold = Callable[[int], None]
"""Counts bytes that are held; HttpError if they are too many."""


class Forwarding:
    """Of one worker. `path`: of the control process's socket; "" if there is none."""

    def __init__(self, path: str, settings: EngineSettings, hits: LimitHits) -> None:
        self._path = path
        self._most = settings.forwarded_requests
        self._seconds = settings.forward_timeout
        self._proxies = Networks(settings.trusted_proxies)
        self._hits = hits
        self._under_way = 0
        self._held = 0

    def takes(self, request: Request) -> bool:
        """Whether a request is for the control process."""
        return request.path.startswith(BELOW) or request.path in EXACT

    async def read_body(self, sock: socket.socket, request: Request, reader: HeadReader) -> None:
        """Read a request to its end. HttpError for one that cannot be passed on; OSError."""
        if not self._path:
            raise HttpError(404, "this server has no control process: the setting `control` is false")
        check_forwardable(request)
        _check_size(int(request.headers.get("content-length", "0")))
        if expects_continue(request) and not reader.whole:
            sock.send(CONTINUE)
        with self._holding() as hold:
            hold(len(reader.body))
            while not reader.whole:
                data = await receive(sock, _READ_SIZE)
                if not data:
                    raise ConnectionResetError("the client has gone")
                hold(len(data))
                reader.feed_body(data)
                _check_size(len(reader.body))

    async def forward(
        self, sock: socket.socket, request: Request, body: bytearray, address: str, arrival: Arrival
    ) -> None:
        """Have a request answered, and send the answer. HttpError, OSError. `address`: the client's."""
        head = forwarded_head(request, len(body), address, self._scheme(sock, request, arrival))
        with self._holding() as hold:
            hold(len(body))
            reader = AnswerReader(to_head=request.method == "HEAD")
            await self._ask(head + body, reader, hold)
            with trio.move_on_after(self._seconds) as scope, arrival.awaiting(scope):
                await send_all(sock, memoryview(reader.data))
                await part(sock)

    async def _ask(self, question: bytes, reader: AnswerReader, hold: Hold) -> None:
        """Read the whole answer of the control process. HttpError 503."""
        if self._under_way >= self._most:
            self._hits.hit(Limit.FORWARDED)
            raise HttpError(503, f"this worker waits for {self._most} other answers of the control process", _AGAIN)
        self._under_way += 1
        self._hits.counters.forwarded += 1
        try:
            with trio.fail_after(self._seconds):
                await self._exchange(question, reader, hold)
        except trio.TooSlowError:
            raise HttpError(503, f"the control process has not answered for {self._seconds:g} s", _AGAIN) from None
        except (OSError, trio.BrokenResourceError):
            raise HttpError(503, "the control process is not there; it is about to be started", _AGAIN) from None
        finally:
            self._under_way -= 1
        if not reader.whole:
            raise HttpError(503, "the control process ended while it answered; it may have done what was asked", _AGAIN)

    async def _exchange(self, question: bytes, reader: AnswerReader, hold: Hold) -> None:
        with socket_address(self._path) as address:
            stream = await trio.open_unix_socket(address)
        async with stream:
            await stream.send_all(question)
            while data := await stream.receive_some(_READ_SIZE):
                hold(len(data))
                reader.feed(data)
                if len(reader.data) > MAX_ANSWER_BYTES:
                    raise HttpError(503, f"the answer has more than {MAX_ANSWER_BYTES} bytes; ask for less at a time")

    @contextmanager
    def _holding(self) -> Iterator[Hold]:
        """Inside the block, bytes that are held can be counted; what is too much is refused."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._held += size
            if self._held > MAX_HELD_BYTES:
                self._hits.hit(Limit.FORWARDED)
                raise HttpError(503, "this worker holds too many requests", _AGAIN)

        try:
            yield hold
        finally:
            self._held -= held

    def _scheme(self, sock: socket.socket, request: Request, arrival: Arrival) -> str:
        """By which the client has come: what a trusted proxy says, or what this connection is."""
        said = request.headers.get("x-forwarded-proto", "")
        if said in ("http", "https") and arrival.address in self._proxies:
            return said
        return "https" if isinstance(sock, ssl.SSLSocket) else "http"


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise HttpError(413, f"a body may have {MAX_BODY_BYTES} bytes; publish in smaller batches")
