"""Plain HTTP for the control process: requests that come to a worker's port, passed on to a socket on this machine.

The body is read before anything is passed on, and the answer before anything is sent back. So a slow client costs the
control process nothing, a slow control process holds a bounded number of requests, and an answer whose end is
missing is never taken for a whole one. Whatever happens here ends with one HTTP answer on one connection.
"""

import socket
import ssl

import trio

from fanline.engine.connections.arrivals import Arrival
from fanline.engine.connections.http.held_bytes import HeldBytes, Hold
from fanline.engine.connections.http.plain_http import part
from fanline.engine.limits import LimitHits
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.control_socket import ControlSocket, OnData
from fanline.engine.sockets.transport import receive, send_all
from fanline.protocol.errors import HttpError
from fanline.protocol.http.forwarding import CONTINUE, AnswerReader, check_forwardable, expects_continue, forwarded_head
from fanline.protocol.websocket.addresses import Networks
from fanline.protocol.websocket.handshake import HeadReader, Request

BELOW = ("/api/", "/console/")
"""All that is below these paths is passed on, ..."""
EXACT = frozenset(("/metrics", "/docs"))
"""... and these paths are."""
MAX_BODY_BYTES = 1024 * 1024
_MAX_FRAMED_BYTES = 8 * MAX_BODY_BYTES
"""Of a body with its framing: a body in chunks of one byte is six times as long, and what stands between chunks has no
end of its own.
"""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_READ_SIZE = 65_536


class Forwarding:
    """Of one worker."""

    def __init__(self, control: ControlSocket, settings: EngineSettings, hits: LimitHits) -> None:
        self._control = control
        self._proxies = Networks(settings.trusted_proxies)
        self._held = HeldBytes(hits)

    def takes(self, request: Request) -> bool:
        """Whether a request is for the control process."""
        return request.path.startswith(BELOW) or request.path in EXACT

    async def read_body(self, sock: socket.socket, request: Request, reader: HeadReader, arrival: Arrival) -> None:
        """Read a request to its end. HttpError for one that cannot be passed on; OSError."""
        self._control.check()
        check_forwardable(request)
        reader.check_body()
        _check_size(int(request.headers.get("content-length", "0")))
        if expects_continue(request) and not reader.whole:
            sock.send(CONTINUE)
        with self._held.of(arrival) as hold:
            read = len(reader.body)
            hold(read)
            while not reader.whole:
                data = await receive(sock, _READ_SIZE)
                if not data:
                    raise ConnectionResetError("the client has gone")
                read += len(data)
                hold(len(data))
                reader.feed_body(data)
                _check_size(len(reader.body) if read <= _MAX_FRAMED_BYTES else read)

    async def ask(
        self, sock: socket.socket, request: Request, body: bytearray, address: str, arrival: Arrival
    ) -> AnswerReader:
        """The whole answer to a request. HttpError. `address`: the client's."""
        head = forwarded_head(request, len(body), address, self._scheme(sock, request, arrival))
        reader = AnswerReader(to_head=request.method == "HEAD")
        with self._held.of(arrival) as hold:
            hold(len(body))
            await self._control.ask(head + body, reader, self._counted(reader, hold))
        return reader

    async def send(self, sock: socket.socket, answer: bytearray, body: bytearray, arrival: Arrival) -> None:
        """Send the answer to a request with this body, and end the connection. OSError."""
        with (
            self._held.of(arrival) as hold,
            trio.move_on_after(self._control.seconds) as scope,
            arrival.awaiting(scope),
        ):
            hold(len(body) + len(answer))
            await send_all(sock, memoryview(answer))
            await part(sock)

    def _counted(self, reader: AnswerReader, hold: Hold) -> OnData:
        """Holds the part of an answer that has been read, which may not be too long."""

        def on_data(size: int) -> None:
            hold(size)
            if len(reader.data) + size > MAX_ANSWER_BYTES:
                raise HttpError(503, f"the answer has more than {MAX_ANSWER_BYTES} bytes; ask for less at a time")

        return on_data

    def _scheme(self, sock: socket.socket, request: Request, arrival: Arrival) -> str:
        """The scheme by which the client connected: what a trusted proxy says, or what this connection uses."""
        said = request.headers.get("x-forwarded-proto", "")
        if said in ("http", "https") and arrival.address in self._proxies:
            return said
        return "https" if isinstance(sock, ssl.SSLSocket) else "http"


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise HttpError(413, f"a body may have {MAX_BODY_BYTES} bytes; publish in smaller batches")
