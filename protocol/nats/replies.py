"""What the control lines of a nats-server mean: its INFO and its -ERR."""

import re
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from fanline.protocol.nats.parser import NatsError, Reply


class ServerInfo(msgspec.Struct, frozen=True):
    """The fields of INFO that a client uses; all others are ignored."""

    version: str = ""
    max_payload: int = 1 << 20
    """Bytes, headers included."""
    headers: bool = False
    tls_required: bool = False
    nonce: str = ""
    """What a client that logs in with a key has to sign."""
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
    LOGIN = auto()  # the credentials are not accepted, or no longer
    OTHER = auto()  # the server ends the connection


class Complaint(NamedTuple):
    """An -ERR of the server."""

    kind: ComplaintKind
    text: str
    """A sentence for the person who reads it."""
    subject: str = ""
    """The subject that is denied."""


_DENIED = re.compile(r'permissions violation for (subscription|publish) to "?([^" ]+)"?', re.IGNORECASE)
_LOGIN = ("authorization violation", "authentication", "user authentication", "account authentication")


def complaint_of(reply: Reply) -> Complaint:
    """The meaning of an -ERR."""
    if denied := _DENIED.match(reply.detail):
        subscribing = denied[1].lower() == "subscription"
        kind = ComplaintKind.SUBSCRIBE_DENIED if subscribing else ComplaintKind.PUBLISH_DENIED
        verb = "subscribe" if subscribing else "publish"
        return Complaint(kind, f"NATS does not permit this user to {verb} to {denied[2]}", denied[2])
    if reply.detail.lower().startswith(_LOGIN):
        return Complaint(ComplaintKind.LOGIN, f"NATS refused the login: {reply.detail}")
    return Complaint(ComplaintKind.OTHER, f"the NATS server refused: {reply.detail}")
