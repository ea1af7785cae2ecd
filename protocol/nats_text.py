"""The part of the NATS client protocol that a publisher needs: bytes to send, replies to read.

The text protocol is specified at docs.nats.io, "NATS Protocol"; headers in its ADR-4. A publisher's whole life:

    reads INFO -> [TLS] -> sends connect_command + PING -> reads PONG (or an error: the server refused)
    -> sends publish_command ... + PING -> reads PONG: the server has taken everything before the PING
    and answers every PING of the server with PONG.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from protocol.errors import ProtocolError

DEFAULT_PORT = 4222
MAX_LINE_BYTES = 1 << 20  # the longest line is INFO with a big cluster's addresses, some tens of KiB
PING = b"PING\r\n"
PONG = b"PONG\r\n"


class NatsError(ProtocolError):
    """A NATS URL, subject, header or server reply that is not what the protocol allows; str() is a sentence."""


class NatsAddress(NamedTuple):
    """Where a server listens and who we are there; empty strings for what the URL does not say."""

    host: str
    port: int
    tls: bool
    user: str
    password: str
    token: str


class ServerInfo(msgspec.Struct, frozen=True):
    """What a publisher uses of INFO; the other fields are ignored."""

    version: str = ""
    max_payload: int = 1 << 20
    """Bytes; headers count."""
    headers: bool = False
    tls_required: bool = False
    auth_required: bool = False


class Reply(NamedTuple):
    """One line of the server. `verb` is INFO, PING, PONG, +OK or -ERR; `detail` is what follows it."""

    verb: str
    detail: str


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


def read_replies(buffer: bytes) -> tuple[list[Reply], bytes]:
    """The complete lines of `buffer`, and the bytes of the line that is still under way. Raises NatsError."""
    *lines, rest = buffer.split(b"\r\n")
    if len(rest) > MAX_LINE_BYTES:
        raise NatsError("the NATS server sent a line without end")
    return [_reply(line) for line in lines], rest


def parse_info(detail: str) -> ServerInfo:
    """The JSON of an INFO reply. Raises NatsError."""
    try:
        return msgspec.json.decode(detail, type=ServerInfo)
    except msgspec.MsgspecError as error:
        raise NatsError(f"the NATS server's INFO cannot be read: {error}") from None


def connect_command(*, name: str = "", user: str = "", password: str = "", token: str = "", tls: bool = False) -> bytes:
    """CONNECT, to be sent right after INFO (and TLS); empty strings are left out."""
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "tls_required": tls,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "headers": True,
    }
    known = {"name": name, "user": user, "pass": password, "auth_token": token}
    options.update({key: value for key, value in known.items() if value})
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"


def publish_command(subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """PUB, or HPUB when there are headers. Raises NatsError for a subject or header that would break the line."""
    _check_line(subject, "subject")
    if " " in subject or "\t" in subject:
        raise NatsError(f"a NATS subject holds no blanks: {subject!r}")
    if not headers:
        return b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload)
    block = _header_block(headers)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (subject.encode(), len(block), len(block) + len(payload), block, payload)


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
            raise NatsError(f"a NATS header name holds no colon: {key!r}")
        if "\r" in value or "\n" in value:
            raise NatsError(f"a NATS header is one line: {value!r}")
        lines.append(f"{key}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _check_line(text: str, what: str) -> None:
    if not text or "\r" in text or "\n" in text:
        raise NatsError(f"not a NATS {what}: {text!r}")
