"""The data (`d`) of the control messages: what `welcome`, `sub` and its answer, `gap`, `err` and the others carry.

A sender writes `Welcome(...).fields()`, a receiver calls `read(Welcome, envelope)`. Where the data is not a map, or may
be something else as well, a function below reads it: `resume_of`, `message_id_of`, `error_of`. `unsub` carries no data;
`ping` and the answer to `call` carry whatever the client or the producer said.

What clients send is checked strictly: unknown keys are refused, except in a `call`, whose verb may be the application's
own. What the server sends is read leniently: unknown keys are ignored, so that an old client understands a newer
server. The section "Data of control messages" in docs/reference/protocol.md lists the same keys; a test compares them.
"""

from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.envelope import Envelope, nested
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import NAME_PATTERN, explain

DEFAULT_LINES = 200
"""Lines of a task's output in a snapshot, if the viewer does not say how many."""
MAX_LINES = 1000
"""Lines of a task's output that a server keeps."""
MAX_LAST = 1_000_000
"""The largest N of `{"last": N}`."""
DEFAULT_PAGE = 100
"""Messages of a page of history, if the client does not say how many."""
MAX_PAGE = 500
"""The most messages of a page."""
CANCEL_SECONDS = 30.0
"""How long a producer may take to stop, if the request does not say."""

_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ControlData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all control data."""

    def fields(self) -> dict[str, Any]:
        """The `d` of an envelope. Keys come in the order of the class; optional ones that have their default are left
        out.
        """
        fields: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return fields

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Check and convert a decoded `d`; None reads as an empty map. Raises msgspec.ValidationError."""
        return msgspec.convert({} if value is None else value, cls)


Data = TypeVar("Data", bound=ControlData)


def read(kind: type[Data], envelope: Envelope) -> Data:
    """The control data of an envelope; no data reads as an empty map. Raises MessageError(BAD_MESSAGE)."""
    try:
        return kind.from_value(envelope.value)
    except msgspec.ValidationError as error:
        expected = _EXPECTED.get(kind, f"the data of `{envelope.type}`")
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{expected}: {explain(error)}", envelope.id) from None


# --- server to client ---------------------------------------------------------------------------------------------


class Limits(ControlData, omit_defaults=False):
    """What a client must keep to."""

    message: int
    """Bytes of one message."""
    subscriptions: int = 0
    """Channels of one connection."""


class Welcome(ControlData, kw_only=True, omit_defaults=False):
    """The server's first message."""

    session: str
    """A secret: whoever names it takes up the session."""
    connection: str = ""
    """The connection's public id, which others may know; it changes with each connection."""
    user: str | None = None
    heartbeat: int
    """Milliseconds between two pings of the server; 0 for none."""
    limits: Limits


class Authenticated(ControlData):
    """The answer to `auth`."""

    user: str | None
    session: str
    resumed: bool | UnsetType = UNSET
    """Whether the session was taken up; left out if the client named none."""
    expires: int | None = None
    """Unix milliseconds at which the client's token ends."""


class Expiring(ControlData):
    """The data of the server's `auth`: the client's token ends soon, and it should send an `auth` with a new one."""

    expires: int
    """Unix milliseconds."""


class Subscribed(ControlData, omit_defaults=False):
    """The answer to a `sub` that asked for history. The envelope's offset and epoch are where live messages begin; of a
    long history, where its first part ends.
    """

    recovered: bool = True
    """False: something the client asked for may be missing, and a `gap` says what."""
    count: int = 0
    """Messages of history that follow, up to that offset."""


class PresentUser(ControlData):
    """A user who is on a channel; the data of `join` and `leave`, without the connections."""

    user_id: str
    username: str | None = None
    """How the user is shown to others."""
    connections: int = 0
    """On the channel; 0 for one who may be back soon."""


class PresenceData(ControlData):
    """Who is on a channel, or in the whole system: the answer to `presence`, and what viewers of a large channel are
    sent in place of `join` and `leave`.
    """

    count: int
    """Users."""
    connections: int
    """Of these users, and of nobody in particular."""
    anonymous: int = 0
    """Those among them without a user name."""
    users: list[PresentUser] | None = None
    """None: too many to be listed."""


class PublishResult(ControlData):
    """The answer to `pub`. The envelope's offset is the message's, on a durable channel."""

    id: str | None = None
    """The message's id, which the server has made; of a duplicate, the id of the first message, if it is known."""
    duplicate: bool = False
    """The message was stored before, under the same de-duplication id; the offset is that of the first one."""


class HistoryAnswer(ControlData, omit_defaults=False):
    """The answer to `history`. The envelope's offset is the `before` or `after` of the next page, and its epoch that of
    all offsets.
    """

    messages: list[Envelope]
    """Oldest first; each has its offset, and no previous one."""
    more: bool = False
    """Whether there are more in the direction that was asked for."""

    def fields(self) -> dict[str, Any]:
        return {"messages": self.messages, "more": self.more}  # the codecs write the envelopes in their own form

    @classmethod
    def from_value(cls, value: Any) -> Self:
        known = value if isinstance(value, dict) else {}
        messages = known.get("messages")
        if not isinstance(messages, list):
            raise msgspec.ValidationError("`messages` is no list")
        return cls(messages=[nested(message) for message in messages], more=bool(known.get("more")))


class ErrorData(ControlData, omit_defaults=False):
    """The data of `err`. `error_of` reads it."""

    code: str = ""
    """An ErrorCode; a text, because a newer server may have others."""
    message: str = "refused without a reason"
    """A sentence for a person."""


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


NOT_DELIVERED = {"delivered": False}
"""The data of an `ok` to a call that is stored, and that the producer does not have yet."""


def error_of(reply: Envelope) -> ErrorData:
    """The data of an `err`. Never fails: a refusal stays a refusal even if its data, as that of a hand-written
    producer may, has another shape.
    """
    value = reply.value
    known = value if isinstance(value, dict) else {}
    given = {key: str(known[key]) for key in ErrorData.__struct_fields__ if known.get(key)}
    return ErrorData(**given)


# --- client to server ---------------------------------------------------------------------------------------------


class Subscribe(ControlData, forbid_unknown_fields=True):
    """Where a `sub` without an offset begins; without data, at what comes from now on."""

    last: Annotated[int, Meta(ge=1, le=MAX_LAST)] | None = None
    """At the newest N stored messages."""
    start: bool = False
    """At the oldest stored message."""
    snapshot: bool = False
    """At the newest stored message; on a task channel, at the task's snapshot. Goes before the other two."""
    lines: Annotated[int, Meta(ge=0, le=MAX_LINES)] = DEFAULT_LINES
    """How many of the newest lines of output a task's snapshot has."""
    presence: bool | UnsetType = UNSET
    """Whether the client is sent `join` and `leave` from now on; left out: as before."""


class AskHistory(ControlData, forbid_unknown_fields=True):
    """Which stored messages a `history` is about; without `before` and `after` the newest. Both name offsets of the
    epoch in the envelope.
    """

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    """How many messages at most."""
    before: _Offset | None = None
    """The newest ones with a lower offset."""
    after: _Offset | None = None
    """The oldest ones with a higher offset."""


class Authenticate(ControlData, forbid_unknown_fields=True):
    """The data of `auth`: who the client is, and the session that it takes up."""

    token: Annotated[str, Meta(min_length=1)] | None = None
    """A token (docs/reference/authentication.md)."""
    session: (
        Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+\Z")] | None  # not `$`: a line feed
    ) = None
    """The id of a session, to be subscribed to what it had."""
    positions: dict[str, tuple[_Offset, str]] = {}
    """Of that session: channel -> (offset, epoch), how far each was received."""


class CallData(ControlData):
    """The data of a `call` with one of the verbs that the engine knows.

    A verb of the application's own may come with any data; data that is not a map reads as the `value`.
    """

    by: Annotated[str, Meta(max_length=64, pattern=NAME_PATTERN)] | None = None
    """The caller's name for the other viewers; counts only for callers without a user name."""
    deadline: Annotated[float, Meta(gt=0, le=86_400)] = CANCEL_SECONDS
    """Of a `cancel`: seconds until the end is forced."""
    ask: Annotated[str, Meta(max_length=256, pattern=NAME_PATTERN)] | None = None
    """Of an answer: the question's id; None for the newest question."""
    value: Any = UNSET
    """Of an answer: what is answered. None is an answer, too."""
    force: bool = False
    """Of a `cancel`: end the task even if no producer is attached."""

    @classmethod
    def from_value(cls, value: Any) -> Self:
        return super().from_value(value if value is None or isinstance(value, dict) else {"value": value})


def command_channel(command: Envelope, *, or_pattern: bool = False) -> str:
    """The channel that a command is about. Raises MessageError(BAD_CHANNEL) if there is none, or it is no channel."""
    if command.channel is None:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"`{command.type}` needs a channel (`c`)")
    return check_channel_or_pattern(command.channel) if or_pattern else check_channel(command.channel)


def message_id_of(command: Envelope) -> str | None:
    """The message that an `ack` without an offset names; None if its data is not a text."""
    value = command.value
    return value if isinstance(value, str) else None


_EXPECTED: dict[type[ControlData], str] = {
    Subscribe: 'the data of `sub` is {"last": N}, {"start": true} or {"snapshot": true}',
    AskHistory: 'the data of `history` is {"limit": N, "before": OFFSET} or {"limit": N, "after": OFFSET}',
    Authenticate: 'the data of `auth` is {"token": TOKEN}, or {"session": ID, "positions": {...}}, or both',
}
