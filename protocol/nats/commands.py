"""What a client sends to a nats-server, as bytes.

A PING of ours is answered in order: its PONG proves that the server has processed every command before it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import ServerInfo

PING = b"PING\r\n"
PONG = b"PONG\r\n"


class Login(NamedTuple):
    """The identity with which a client connects; what is not used is empty."""

    user: str = ""
    password: str = ""
    token: str = ""
    jwt: str = ""
    """The user JWT of a creds file."""
    nkey: str = ""
    """The public key that belongs to `sign`."""
    sign: Callable[[bytes], str] | None = None
    """Signs the server's nonce; returns the signature in base64url."""


def hello(info: ServerInfo, login: Login, *, name: str, tls: bool) -> bytes:
    """CONNECT and PING, to be sent right after INFO (and TLS); what is empty is left out."""
    signature = login.sign(info.nonce.encode()) if login.sign is not None and info.nonce else ""
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
    known = {
        "name": name,
        "user": login.user,
        "pass": login.password,
        "auth_token": login.token,
        "jwt": login.jwt,
        "nkey": "" if login.jwt else login.nkey,
        "sig": signature,
    }
    options |= {key: value for key, value in known.items() if value}
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n" + PING


def publish(subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = "") -> bytes:
    """PUB, or HPUB if there are headers; `reply` is the subject for an answer.

    Raises NatsError for a subject or header that would break the line.
    """
    target = _subject(subject) + (b" " + _subject(reply) if reply else b"")
    if not headers:
        return b"PUB %s %d\r\n%s\r\n" % (target, len(payload), payload)
    block = _header_block(headers)
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (target, len(block), len(block) + len(payload), block, payload)


def header_bytes(headers: Mapping[str, str] | None) -> int:
    """How many bytes of the server's `max_payload` the headers take. Raises NatsError, as `publish` does."""
    return len(_header_block(headers)) if headers else 0


def subscribe(subject: str, sid: int, queue: str = "") -> bytes:
    """SUB; `sid` is the number we give to the subscription. Of the subscribers of one `queue`, one gets each message.
    Raises NatsError.
    """
    if queue:
        return b"SUB %s %s %d\r\n" % (_subject(subject), _subject(queue), sid)
    return b"SUB %s %d\r\n" % (_subject(subject), sid)


def unsubscribe(sid: int, most: int = 0) -> bytes:
    """UNSUB, in effect at once, or after `most` messages in all."""
    return b"UNSUB %d %d\r\n" % (sid, most) if most else b"UNSUB %d\r\n" % sid


def _header_block(headers: Mapping[str, str]) -> bytes:
    lines = ["NATS/1.0"]
    for key, value in headers.items():
        _check_line(key, "header name")
        if ":" in key:
            raise NatsError(f"a NATS header name must not contain a colon: {key!r}")
        if "\r" in value or "\n" in value:
            raise NatsError(f"a NATS header must be one line: {value!r}")
        lines.append(f"{key}: {value}")
    return _encoded("\r\n".join(lines) + "\r\n\r\n")


def _subject(subject: str) -> bytes:
    _check_line(subject, "subject")
    if " " in subject or "\t" in subject:
        raise NatsError(f"a NATS subject must not contain spaces or tabs: {subject!r}")
    return _encoded(subject)


def _check_line(text: str, what: str) -> None:
    if not text or "\r" in text or "\n" in text:
        raise NatsError(f"not a NATS {what}: {text!r}")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NatsError(f"NATS takes only valid Unicode: {text!r}") from None
