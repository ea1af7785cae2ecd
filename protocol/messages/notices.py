"""What the server says unasked: `welcome`, its `auth`, `gap`, `reconnect` and `bye`."""

from enum import StrEnum

from fanline.protocol.messages.control_data import ControlData


class Limits(ControlData, omit_defaults=False):
    """What a client must keep to."""

    message: int
    """Bytes of one message."""
    subscriptions: int = 0
    """Channels of one connection."""


class Welcome(ControlData, kw_only=True, omit_defaults=False):
    """The server's first message."""

    session: str
    """A secret: a client that names it takes up the session."""
    connection: str = ""
    """The connection's public id, which others may know; it changes with each connection."""
    user: str | None = None
    heartbeat: int
    """Milliseconds between two pings of the server; 0 for none."""
    limits: Limits


class Expiring(ControlData):
    """The data of the server's `auth`: the client's token ends soon, and it should send an `auth` with a new one."""

    expires: int
    """Unix milliseconds."""


class GapReason(StrEnum):
    """Why messages will not come."""

    EXPIRED = "expired"  # the stream no longer holds them (age, length or size limit)
    EPOCH = "epoch"  # the stream was recreated: offsets start again
    FAULT = "fault"  # the server fails to handle them; its log says why
    OUTAGE = "outage"  # the worker did not hear a namespace for a while, and nothing is read again
    SLOW = "slow"  # they were dropped, because this client did not keep up on an ephemeral channel


class GapData(ControlData, kw_only=True, rename={"first": "from", "last": "to"}):
    """The data of `gap`: the offsets that may be missing, or how many messages were dropped."""

    first: int | None = None
    last: int | None = None
    reason: str
    """A GapReason; a text, because a newer server may have others."""
    count: int | None = None


class ReconnectData(ControlData):
    """The data of `reconnect`."""

    delay: int
    """Milliseconds to wait before coming back."""
    reason: str


class ByeData(ControlData):
    """The data of `bye`: the close code that follows, and its text (see CloseReason)."""

    code: int
    reason: str
