"""What a worker passes on of a plain HTTP request, and when the answer is whole.

The request is composed again from what the parser understood, with the length of the body that was read: whatever a
client says about lengths and encodings, the next reader sees the same end of the request as the worker did, so nothing
can be smuggled behind it. A connection of a client carries one request (RFC 9112 section 9.6), one to the
control process carries one after the other.
"""

from collections.abc import Iterator, Mapping

import httptools

from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HOP_BY_HOP = frozenset(  # RFC 9110 section 7.6.1, with what else is about this connection or the body's framing
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    "upgrade http2-settings content-length expect".split()
)
_SAID_BY_PROXIES = frozenset(("forwarded", "x-real-ip"))
_BY_PROXIES = "x-forwarded-"
KNOWN_CALLER = ("fanline-caller", "known")
"""Header by which the control process says that it knows who has asked. It is not for clients."""
_KNOWN_CALLER = "\r\n{}: {}".format(*KNOWN_CALLER).encode()
_HEAD_END = b"\r\n\r\n"
_BREAKS = frozenset("\r\n\0")


def check_forwardable(request: Request) -> None:
    """HttpError 400 or 405 for a request that cannot be passed on."""
    headers = request.headers
    if request.method not in METHODS:
        raise HttpError(405, f"use one of {', '.join(sorted(METHODS))}", (("Allow", ", ".join(sorted(METHODS))),))
    if request.version != "1.1" or "host" not in headers:
        raise HttpError(400, "a request here needs HTTP/1.1 and a Host header")
    if "upgrade" in _tokens(headers.get("connection", "")):
        raise HttpError(400, "no other protocol is spoken at this path")
    coding = headers.get("transfer-encoding")
    if coding is not None and ("content-length" in headers or coding.strip().lower() != "chunked"):
        raise HttpError(400, "send the body with Content-Length, or with Transfer-Encoding: chunked alone")


def expects_continue(request: Request) -> bool:
    """Whether the client waits for `100 Continue` before it sends the body."""
    return request.headers.get("expect", "").lower() == "100-continue"


def forwarded_head(request: Request, length: int, address: str, scheme: str) -> bytes:
    """The head under which a request is passed on. `length`: bytes of its body; `address`: its client's; `scheme`: by
    which the client has come, http or https. HttpError 400.
    """
    target = f"{request.path}?{request.query}" if request.query else request.path
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in _kept(request.headers))]
    lines += [f"x-forwarded-for: {address}", f"x-forwarded-proto: {scheme}", f"content-length: {length}"]
    if any(not _BREAKS.isdisjoint(line) for line in lines):
        raise HttpError(400, "a header has a line break in it")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def posted_head(path: str, length: int, credential: str | None, address: str) -> bytes:
    """The head under which a worker itself asks something for a client: with what the client has shown, if anything.
    HttpError 400 for text that a header cannot hold.
    """
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    if credential is not None:
        if not (credential.isascii() and credential.isprintable()):
            raise HttpError(400, "what was shown at the handshake is no token")
        lines.append(f"authorization: Bearer {credential}")
    lines += [f"x-forwarded-for: {address}", f"content-length: {length}", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _kept(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The headers that are about the request, and said by the client."""
    dropped = _HOP_BY_HOP | _SAID_BY_PROXIES | (_tokens(headers.get("connection", "")) - {"host"})
    return (
        (name, value) for name, value in headers.items() if name not in dropped and not name.startswith(_BY_PROXIES)
    )


def _tokens(header: str) -> set[str]:
    return {token.strip().lower() for token in header.split(",")}


class AnswerReader:
    """Collects one answer, and knows whether it is whole. `to_head`: to a HEAD request, whose answer has no body."""

    def __init__(self, *, to_head: bool) -> None:
        self._to_head = to_head
        self._parser = httptools.HttpResponseParser(self)
        self._has_head = False
        self._is_whole = False
        self._lasts = False
        self.data = bytearray()
        self.knows_caller = False
        """Whether the control process knows who has asked; once the answer is whole."""

    def on_message_begin(self) -> None:
        """For httptools: of the answer, and of what follows it."""
        self._lasts = False

    def on_headers_complete(self) -> None:
        """For httptools."""
        self._has_head = True
        self._lasts = self._parser.should_keep_alive()
        self.knows_caller = self._caller_line() >= 0

    def on_message_complete(self) -> None:
        """For httptools."""
        self._is_whole = True

    def feed(self, data: bytes) -> None:
        """Take more of it. HttpError 503 for data that is not an answer."""
        self.data += data
        try:
            if not (self._to_head and self._has_head):
                self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise HttpError(503, "the control process has given no answer that can be read") from None

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, if this was all."""
        return self._is_whole or (self._to_head and self._has_head)

    @property
    def leaves_open(self) -> bool:
        """Whether the answer is whole, and a further request can be sent on its connection."""
        return self.whole and self._lasts

    def for_client(self) -> bytearray:
        """The answer as a client gets it, whose connection ends with it. Called once, when the answer is whole."""
        if self.knows_caller:
            start = self._caller_line()
            del self.data[start : start + len(_KNOWN_CALLER)]
        if self._lasts:
            end = self.data.index(b"\r\n")
            self.data[end:end] = b"\r\nconnection: close"
        return self.data

    def _caller_line(self) -> int:
        """Where the header of a known caller begins; -1 if there is none."""
        return self.data.find(_KNOWN_CALLER + b"\r\n", 0, self.data.find(_HEAD_END) + len(_HEAD_END))


class BodyReader(AnswerReader):
    """The same for a worker that reads the answer itself."""

    def __init__(self) -> None:
        super().__init__(to_head=False)
        self.body = bytearray()

    def on_body(self, data: bytes) -> None:
        """For httptools."""
        self.body += data

    @property
    def status(self) -> int:
        """Once the answer is whole."""
        return self._parser.get_status_code()
