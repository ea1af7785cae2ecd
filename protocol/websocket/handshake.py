"""The opening handshake (RFC 6455 section 4.2): request bytes in, a checked request out, response bytes back.

httptools (llhttp) parses the head; the rules of the upgrade are here. Every refusal is an HttpError with the status,
a sentence for a person, and the headers that the status requires.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import httptools

from fanline.protocol.errors import HttpError

MAX_HEAD_BYTES = 16 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LISTS = frozenset(("connection", "sec-websocket-protocol", "sec-websocket-extensions", "upgrade", "x-forwarded-for"))
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),  # JSON stays JSON, whatever a browser thinks it looks like
    ("Cache-Control", "no-store"),  # an answer is about one client at one moment, and its URL may hold a token
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),  # nothing in it is run, or framed
    ("Referrer-Policy", "no-referrer"),  # a URL may hold a token
    ("Cross-Origin-Resource-Policy", "same-origin"),  # no page of another origin may embed it
)
"""Of every answer but 101. None says what server this is. `Strict-Transport-Security` is left to those who serve the
host's pages: it would concern all its ports.
"""
_STATUS = {
    101: "Switching Protocols",
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Request(NamedTuple):
    """A request head. Header names are in lower case; repeated list headers are joined with a comma."""

    method: str
    path: str
    query: str
    version: str
    headers: Mapping[str, str]
    rest: bytes
    """Bytes after the head: the first frames of an eager client."""


class HeadReader:
    """Collects one request head of at most MAX_HEAD_BYTES from chunks of any size."""

    def __init__(self) -> None:
        self._received = 0
        self._head = _Head()
        self._is_broken = False  # behind the head
        self._parser = httptools.HttpRequestParser(self._head)

    def feed(self, data: bytes) -> Request | None:
        """The request once its head is complete, None before. Raises HttpError 400 or 431."""
        room = MAX_HEAD_BYTES - self._received
        self._received += len(data)
        rest = b""
        self._head.parser = self._parser
        try:
            self._parser.feed_data(data[:room])
            if self._head.said is not None and len(data) > room:  # of the body
                self._parser.feed_data(data[room:])
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if self._head.said is None:
                raise _refusal(error) from None
            self._is_broken = True
        finally:
            self._head.parser = None
        if self._head.said is None:
            if len(data) > room:
                raise HttpError(431, f"request head over {MAX_HEAD_BYTES} bytes")
            return None
        path, _, query = self._head.target.decode("latin-1").partition("?")
        method, version = self._head.said
        return Request(method, path, query, version, self._head.headers, rest)

    def check_body(self) -> None:
        """Raises HttpError 400 if what has come behind the head cannot become its body."""
        if self._is_broken and not self.whole:  # else the fault is in what follows on the request, which is ignored
            raise HttpError(400, "the body of the request is broken")

    def feed_body(self, data: bytes) -> None:
        """Go on after the head. Raises HttpError 400."""
        self._head.parser = self._parser
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._is_broken = True
        finally:
            self._head.parser = None
        self.check_body()

    @property
    def body(self) -> bytearray:
        """What there is of the body so far, without the framing of chunks."""
        return self._head.body

    @property
    def whole(self) -> bool:
        """Whether the request is complete."""
        return self._head.whole


class _Head:
    """What httptools has called back with. It refers to the parser, which refers to it, only while that parses: neither
    is left to the garbage collector, however the handshake ends.
    """

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser | None = None
        self.target = b""
        self.headers: dict[str, str] = {}
        self.said: tuple[str, str] | None = None
        """Method and version, once the head is complete."""
        self.body = bytearray()
        self.whole = False

    # Called for requests pipelined behind the first one as well, which are ignored.
    def on_url(self, url: bytes) -> None:
        if self.said is None:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.said is not None:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self.headers:
            if key not in _LISTS:
                raise HttpError(400, f"header {key} is repeated")
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text

    def on_headers_complete(self) -> None:
        if self.said is None and self.parser is not None:
            self.said = self.parser.get_method().decode("latin-1"), self.parser.get_http_version()

    def on_body(self, data: bytes) -> None:
        if not self.whole:
            self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


def _refusal(error: httptools.HttpParserError) -> HttpError:
    cause = error.__context__
    return cause if isinstance(cause, HttpError) else HttpError(400, "this is not an HTTP/1.1 request")


def check_upgrade(request: Request) -> str:
    """The value of Sec-WebSocket-Accept for a request to open a WebSocket. Raises HttpError for any other."""
    headers = request.headers
    if request.method != "GET":
        raise HttpError(405, "a WebSocket is opened with GET", (("Allow", "GET"),))
    upgrade, connection = _tokens(headers.get("upgrade", "")), _tokens(headers.get("connection", ""))
    if "websocket" not in upgrade or "upgrade" not in connection:
        raise HttpError(426, "this endpoint speaks WebSocket only", (("Upgrade", "websocket"),))
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HttpError(400, "a WebSocket is opened by a request without a body")
    if request.version != "1.1" or "host" not in headers:
        raise HttpError(400, "a WebSocket is opened with HTTP/1.1 and a Host header")
    if headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "only WebSocket version 13 is spoken here", (("Sec-WebSocket-Version", "13"),))
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise HttpError(400, "Sec-WebSocket-Key is missing or not 16 bytes in base64")
    return accept_value(key)


def choose_subprotocol(request: Request, known: Sequence[str]) -> str | None:
    """The first offered subprotocol that is in `known`; None without an offer. HttpError 400 if none is known; a token
    that is offered beside one (protocol/auth/request_token.py) is none.
    """
    header = request.headers.get("sec-websocket-protocol")
    if header is None:
        return None
    for offered in header.split(","):
        if offered.strip() in known:
            return offered.strip()
    raise HttpError(400, f"none of the offered subprotocols is known; known: {', '.join(known)}")


def accept_value(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


def upgrade_response(accept: str, subprotocol: str | None, extension: str | None = None) -> bytes:
    """The 101 response that turns the connection into a WebSocket."""
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    if extension is not None:
        headers.append(("Sec-WebSocket-Extensions", extension))
    return _response_head(101, headers)


def http_response(status: int, body: bytes, headers: Sequence[tuple[str, str]] = (), *, is_head: bool = False) -> bytes:
    """A complete JSON response that closes the connection; the answer to HEAD leaves out the body."""
    own = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    return _response_head(status, [*headers, *own, *SECURITY_HEADERS]) + (b"" if is_head else body)


def _response_head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_STATUS[status]}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _tokens(header: str) -> set[str]:
    return {token.strip().lower() for token in header.split(",")}


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
