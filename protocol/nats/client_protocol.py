"""The part of the NATS client protocol that a producer needs: commands to send, replies and messages to read.

The text protocol is specified at docs.nats.io, "NATS Protocol"; headers in its ADR-4. What a publisher does:

    reads INFO -> [TLS] -> sends connect_command + PING -> reads PONG (or an error: the server refused)
    -> sends publish_command ... + PING -> reads PONG: the server has accepted everything before the PING
    and it answers each PING of the server with PONG.

To listen as well, it sends subscribe_command and reads messages between the replies.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import msgspec

from fanline.protocol.errors import ProtocolError

DEFAULT_PORT = 4222
MAX_LINE_BYTES = 1 << 20  # the longest line is the INFO of a big cluster, some tens of KiB of addresses
PING = b"PING\r\n"
PONG = b"PONG\r\n"


class NatsError(ProtocolError):
    """A NATS URL, subject, header or server reply that the protocol does not allow; str() is a sentence."""


class NatsAddress(NamedTuple):
    """Where a server listens, and the credentials; what the URL does not have is empty."""

    host: str
    port: int
    tls: bool
    user: str
    password: str
    token: str


class ServerInfo(msgspec.Struct, frozen=True):
    """The fields of INFO that a publisher uses; all others are ignored."""

    version: str = ""
    max_payload: int = 1 << 20
    """Bytes, headers included."""
    headers: bool = False
    tls_required: bool = False


class Reply(NamedTuple):
    """One line of the server. `verb` is INFO, PING, PONG, +OK or -ERR; `detail` is the rest of the line."""

    verb: str
    detail: str


class NatsMessage(NamedTuple):
    """A message that came on one of our subscriptions."""

    sid: int
    """Number of the subscription, as given to subscribe_command."""
    subject: str
    reply: str
    """The subject for an answer; empty if none is wanted."""
    payload: bytes
    status: int | None = None
    """Set if the NATS server answered in place of a client, as with 503: the subject has no subscriber."""


def parse_url(url: str) -> NatsAddress:
    """`nats://[token@|user:password@]host[:port]`, `tls://` for TLS, or bare `host[:port]`. Raises NatsError."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise NatsError(f"not a NATS URL: {url!r} ({error})") from None
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise NatsError(f"not a NATS URL: {url!r} (expected nats://host:port or tls://host:port)")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    token = "" if parts.password is not None else user
    return NatsAddress(parts.hostname, port, parts.scheme == "tls", "" if token else user, password, token)


def url_of(address: NatsAddress) -> str:
    """The inverse of `parse_url`."""
    secrets = (address.token,) if address.token else (address.user, address.password) if address.user else ()
    login = ":".join(quote(secret, safe="") for secret in secrets) + "@" * bool(secrets)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'tls' if address.tls else 'nats'}://{login}{host}:{address.port}"


def read_replies(buffer: bytes) -> tuple[list[Reply], bytes]:
    """The complete lines of `buffer`, and the bytes of the incomplete one. Raises NatsError."""
    *lines, rest = buffer.split(b"\r\n")
    if len(rest) > MAX_LINE_BYTES:
        raise NatsError("the NATS server sent a line that does not end")
    return [_reply(line) for line in lines], rest


def read_server(buffer: bytes) -> tuple[list[Reply | NatsMessage], bytes]:
    """The complete replies and messages of `buffer`, and the bytes of the incomplete one. Raises NatsError."""
    found: list[Reply | NatsMessage] = []
    start = 0
    while (end := buffer.find(b"\r\n", start)) >= 0:
        line, after = buffer[start:end], end + 2
        if line.startswith((b"MSG ", b"HMSG ")):
            head = _message_head(line)
            if len(buffer) < after + head.size + 2:
                return found, buffer[start:]
            found.append(_message(head, buffer[after : after + head.size]))
            after += head.size + 2
        else:
            found.append(_reply(line))
        start = after
    if len(buffer) - start > MAX_LINE_BYTES:
        raise NatsError("the NATS server sent a line that does not end")
    return found, buffer[start:]


def parse_info(detail: str) -> ServerInfo:
    """The JSON of an INFO reply. Raises NatsError."""
    try:
        return msgspec.json.decode(detail, type=ServerInfo)
    except msgspec.MsgspecError as error:
        raise NatsError(f"the NATS server's INFO cannot be read: {error}") from None


def connect_command(*, name: str = "", user: str = "", password: str = "", token: str = "", tls: bool = False) -> bytes:
    """CONNECT, which must follow INFO (and TLS) at once; empty strings are left out."""
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "tls_required": tls,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,  # a request without a listener is answered at once, with status 503
    }
    known = {"name": name, "user": user, "pass": password, "auth_token": token}
    options.update({key: value for key, value in known.items() if value})
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"


def publish_command(
    subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = ""
) -> bytes:
    """PUB, or HPUB if there are headers; `reply` is the subject for an answer.

    Raises NatsError for a subject or header that would break the line.
    """
    target = _check_subject(subject) + (" " + _check_subject(reply) if reply else "")
    if not headers:
        return b"PUB %s %d\r\n%s\r\n" % (target.encode(), len(payload), payload)
    block = _header_block(headers)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (target.encode(), len(block), len(block) + len(payload), block, payload)


def subscribe_command(subject: str, sid: int) -> bytes:
    """SUB; `sid` is the number we give to the subscription. Raises NatsError."""
    return b"SUB %s %d\r\n" % (_check_subject(subject).encode(), sid)


def unsubscribe_command(sid: int) -> bytes:
    return b"UNSUB %d\r\n" % sid


class _Head(NamedTuple):
    """The line before a message; `headers` and `size` (headers included) in bytes."""

    subject: str
    sid: int
    reply: str
    headers: int
    size: int


def _message_head(line: bytes) -> _Head:
    """`MSG subject sid [reply] size`, or `HMSG subject sid [reply] headers size`."""
    try:
        verb, subject, sid, *rest = line.decode().split()
        *rest, size = rest
        headers = rest.pop() if verb == "HMSG" else "0"
        (reply,) = rest or [""]
        return _Head(subject, int(sid), reply, int(headers), int(size))
    except (ValueError, IndexError):
        raise NatsError(f"the NATS server sent {line[:40]!r}") from None


def _message(head: _Head, body: bytes) -> NatsMessage:
    return NatsMessage(head.sid, head.subject, head.reply, body[head.headers :], _status(body[: head.headers]))


def _status(headers: bytes) -> int | None:
    """The number in the first line of the headers, `NATS/1.0 503 No Responders`."""
    _, _, word = headers.partition(b"\r\n")[0].partition(b" ")
    code = word.partition(b" ")[0]
    return int(code) if code.isdigit() else None


def _reply(line: bytes) -> Reply:
    verb, _, detail = line.decode("utf-8", "replace").partition(" ")
    verb = verb.upper()
    if verb not in ("INFO", "PING", "PONG", "+OK", "-ERR"):
        raise NatsError(f"this is not a NATS server: it sent {line[:40]!r}")
    return Reply(verb, detail.strip().strip("'"))


def _header_block(headers: Mapping[str, str]) -> bytes:
    lines = ["NATS/1.0"]
    for key, value in headers.items():
        _check_line(key, "header name")
        if ":" in key:
            raise NatsError(f"a NATS header name must not contain a colon: {key!r}")
        if "\r" in value or "\n" in value:
            raise NatsError(f"a NATS header must be one line: {value!r}")
        lines.append(f"{key}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _check_subject(subject: str) -> str:
    _check_line(subject, "subject")
    if " " in subject or "\t" in subject:
        raise NatsError(f"a NATS subject must not contain blanks: {subject!r}")
    return subject


def _check_line(text: str, what: str) -> None:
    if not text or "\r" in text or "\n" in text:
        raise NatsError(f"not a NATS {what}: {text!r}")
