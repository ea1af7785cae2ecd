"""What a nats-server sends, as values: bytes in, whole messages and control lines out. On the hot path of the bus.

The text protocol is specified at docs.nats.io, "NATS Protocol"; headers in ADR-4. A server sends

    INFO {json}   PING   PONG   +OK   -ERR 'text'
    MSG subject sid [reply] size            and `size` bytes
    HMSG subject sid [reply] headers size   and `size` bytes, the first `headers` of which are headers

each line, and what follows it, ended by CR LF. Headers stay bytes, and are read only as far as they are asked for.
"""

from typing import NamedTuple

import msgspec

from fanline.protocol.errors import ProtocolError

MAX_LINE_BYTES = 1 << 20  # the longest line is INFO with a big cluster's addresses, some tens of KiB
MAX_MESSAGE_BYTES = 64 << 20  # what a nats-server can be configured to take at most
_MESSAGE = (b"MSG ", b"HMSG ")
_H = ord("H")
_VERBS = frozenset(("INFO", "PING", "PONG", "+OK", "-ERR"))


class NatsError(ProtocolError):
    """A NATS URL, subject, header or server reply that is not what the protocol allows; str() is a sentence."""


class Reply(NamedTuple):
    """One line of the server. `verb` is INFO, PING, PONG, +OK or -ERR; `detail` is what follows it."""

    verb: str
    detail: str


class NatsMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that came on one of our subscriptions."""

    sid: int
    """Number of the subscription, as in its SUB."""
    subject: str
    reply: str
    """The subject for an answer; empty if none is wanted."""
    payload: bytes
    headers: bytes = b""
    """The header block as it came, from `NATS/1.0`; empty without headers."""

    @property
    def status(self) -> int | None:
        """Set if the NATS server answered in place of a client, as with 503: the subject has no subscriber."""
        return status_of(self.headers)


class Parser:
    """Collects what one server sends, however it is cut into pieces."""

    __slots__ = ("_missing", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line or message under way
        self._missing = 0  # the fewest bytes that can complete it

    @property
    def is_amid(self) -> bool:
        """Whether the beginning of something has come, and not yet its end."""
        return bool(self._pieces)

    def feed(self, data: bytes) -> list[Reply | NatsMessage]:
        """The messages and control lines that `data` completes, in order. NatsError for anything else."""
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:  # the pieces of a large message are joined once, not at every read
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        found, end, self._missing = _parse(data)
        if end < len(data):
            self._pieces.append(data[end:])
        return found


def _parse(data: bytes) -> tuple[list[Reply | NatsMessage], int, int]:
    """What is complete in `data`, where it ends, and the fewest bytes that can complete what comes after it."""
    found: list[Reply | NatsMessage] = []
    start, size = 0, len(data)
    while (end := data.find(b"\r\n", start)) >= 0:
        if not data.startswith(_MESSAGE, start):
            found.append(_reply(data[start:end]))
            start = end + 2
            continue
        message, after = _message(data, start, end, with_headers=data[start] == _H)
        if after > size:
            return found, start, after - size
        assert message is not None
        found.append(message)
        start = after
    if size - start > MAX_LINE_BYTES:
        raise NatsError("the NATS server sent a line that does not end")
    return found, start, 1


def _message(data: bytes, start: int, end: int, *, with_headers: bool) -> tuple[NatsMessage | None, int]:
    """The message whose line is data[start:end], None if it is not complete; and where it ends."""
    fields = data[start:end].split(b" ")  # other control characters may stand in a subject, as may any byte over 0x7f
    try:
        length, head = int(fields[-1]), int(fields[-2]) if with_headers else 0
        sid, subject, count = int(fields[2]), fields[1].decode("utf-8", "replace"), len(fields) - with_headers
    except (ValueError, IndexError):
        raise _garbage(data, start) from None
    after = end + 4 + length
    if count not in (4, 5) or not 0 <= head <= length <= MAX_MESSAGE_BYTES:
        raise _garbage(data, start)
    if after > len(data):
        return None, after
    if data[after - 2 : after] != b"\r\n":
        raise _garbage(data, start)
    body = end + 2
    reply = fields[3].decode("utf-8", "replace") if count == 5 else ""
    return NatsMessage(sid, subject, reply, data[body + head : after - 2], data[body : body + head]), after


def _garbage(data: bytes, start: int) -> NatsError:
    return NatsError(f"this is not a NATS server: it sent {data[start : start + 40]!r}")


def _reply(line: bytes) -> Reply:
    verb, _, detail = line.decode("utf-8", "replace").partition(" ")
    verb = verb.upper()
    if verb not in _VERBS:
        raise _garbage(line, 0)
    return Reply(verb, detail.strip().strip("'"))


# --- headers ------------------------------------------------------------------------------------------------------


def status_of(headers: bytes) -> int | None:
    """The number in the first line of a header block, as in `NATS/1.0 503 No Responders`."""
    if not headers:
        return None
    _, _, word = headers.partition(b"\r\n")[0].partition(b" ")
    code = word.partition(b" ")[0]
    return int(code) if len(code) == 3 and code.isdigit() else None


def header_of(headers: bytes, name: str) -> str | None:
    """The value of a header, found by its bytes: `name` is written as the server writes it. None without one.

    Of several the last one counts: JetStream puts its own behind those of the publisher, who may use any name.
    """
    mark = b"\r\n%s:" % name.encode()
    at = headers.rfind(mark)
    if at < 0:
        return None
    return headers[at + len(mark) :].partition(b"\r\n")[0].strip().decode("utf-8", "replace")
