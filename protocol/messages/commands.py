"""What clients say: the data of `auth`, `sub`, `history` and `call`, and what else a command names."""

from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.control_data import ControlData
from fanline.protocol.text import NAME_PATTERN

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


class Subscribe(ControlData, forbid_unknown_fields=True):
    """Where a `sub` without an offset begins; without data, at what comes from now on."""

    expected: ClassVar[str] = 'the data of `sub` is {"last": N}, {"start": true} or {"snapshot": true}'

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

    expected: ClassVar[str] = 'the data of `history` is {"limit": N, "before": OFFSET} or {"limit": N, "after": OFFSET}'

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    """How many messages at most."""
    before: _Offset | None = None
    """The newest ones with a lower offset."""
    after: _Offset | None = None
    """The oldest ones with a higher offset."""


class Authenticate(ControlData, forbid_unknown_fields=True):
    """The data of `auth`: who the client is, and the session that it takes up."""

    expected: ClassVar[str] = 'the data of `auth` is {"token": TOKEN}, or {"session": ID, "positions": {...}}, or both'

    token: Annotated[str, Meta(min_length=1)] | None = None
    """A token (docs/reference/authentication.md)."""
    session: (
        Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+\Z")] | None  # not `$`: a line feed
    ) = None
    """The id of a session, to be subscribed to what it had."""
    positions: dict[str, tuple[_Offset, str]] = msgspec.field(default_factory=dict)
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
