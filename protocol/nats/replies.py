"""What a nats-server says about itself and what goes wrong: INFO, -ERR, and one error of JetStream."""

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.nats.parser import NatsError, Reply


class ServerInfo(msgspec.Struct, frozen=True):
    """The fields of INFO that a client uses; all others are ignored."""

    version: str = ""
    max_payload: int = 1 << 20
    """Bytes, headers included."""
    headers: bool = False
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    """The nonce that a client which logs in with a key has to sign."""
    connect_urls: list[str] = []
    """`host:port` of each server of the cluster."""
    ldm: bool = False
    """Lame duck mode: the server is about to stop, and its clients should move to another one."""


def parse_info(detail: str) -> ServerInfo:
    """The JSON of an INFO line. Raises NatsError."""
    try:
        return msgspec.json.decode(detail, type=ServerInfo)
    except msgspec.MsgspecError as error:
        raise NatsError(f"the NATS server's INFO cannot be read: {error}") from None


class ComplaintKind(Enum):
    """What an -ERR means for the connection."""

    SUBSCRIBE_DENIED = auto()  # concerns one subject; the connection goes on
    PUBLISH_DENIED = auto()
    COMMAND_REFUSED = auto()  # concerns one command, the server does not say which; the connection goes on
    LOGIN = auto()  # the credentials are not accepted, or no longer
    OTHER = auto()  # the server ends the connection


class Complaint(NamedTuple):
    """An -ERR of the server."""

    kind: ComplaintKind
    text: str
    """A sentence for the person who reads it."""
    subject: str = ""
    """The subject that is denied."""


# Texts: nats-server, server/client.go; a subject is quoted as Go does it.
_DENIED = re.compile(
    r'permissions violation for (subscription to|publish to|publish with reply of) "((?:[^"\\]|\\.)*)"', re.IGNORECASE
)
_DENIED_VERBS = {
    "subscription to": "subscribe to",
    "publish to": "publish to",
    "publish with reply of": "ask for replies on",
}
_REFUSED = ("maximum subscriptions exceeded", "invalid subject", "invalid publish subject")
_LOGIN = ("authorization violation", "authentication", "user authentication", "account authentication")


def complaint_of(reply: Reply) -> Complaint:
    """The meaning of an -ERR."""
    if denied := _DENIED.match(reply.detail):
        what, subject = denied[1].lower(), denied[2]
        kind = ComplaintKind.PUBLISH_DENIED if what.startswith("publish") else ComplaintKind.SUBSCRIBE_DENIED
        return Complaint(kind, f"NATS does not permit this user to {_DENIED_VERBS[what]} {subject}", subject)
    said = reply.detail.lower()
    if said.startswith(_LOGIN):
        return Complaint(ComplaintKind.LOGIN, f"NATS refused the login: {reply.detail}")
    kind = ComplaintKind.COMMAND_REFUSED if said.startswith(_REFUSED) else ComplaintKind.OTHER
    return Complaint(kind, f"the NATS server refused: {reply.detail}")


# Numbers of JetStream's errors: nats-server, server/errors.json.
_NO_RESOURCES = 10023  # the limit of the server, or of the account, is reached
_NOT_STORED = 10077  # with the reason in words
OTHER_STREAM = 10060
"""The message was for another stream."""
_NOT_ENABLED = 10039


def is_not_enabled(error: Mapping[str, Any]) -> bool:
    """Whether the account has no JetStream of its own, by the `error` of its answer."""
    return error.get("err_code") == _NOT_ENABLED


def is_storage_full(error: Mapping[str, Any]) -> bool:
    """Whether JetStream has no room for a message, by the `error` of its answer."""
    number = error.get("err_code")
    return number == _NO_RESOURCES or (number == _NOT_STORED and "maximum bytes" in error.get("description", ""))
