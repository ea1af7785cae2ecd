"""The data (`d`) of the control messages: what `welcome`, `sub` and its answer, `gap`, `err`, ... say.

Whoever makes one writes `Welcome(...).fields()`; whoever reads one calls `read(Welcome, envelope)`. Data that clients
send is checked strictly, unknown keys are refused; of what the server sends, unknown keys are ignored, so that an old
client understands a newer server. docs/reference/protocol.md has the same in words.
"""

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError

DEFAULT_LINES = 200
"""Lines of a task's output for a viewer who does not say how many."""
MAX_LINES = 1000
"""Lines of a task's output that a server keeps."""
MAX_LAST = 1_000_000
"""Most messages that `{"last": N}` may ask for."""
CANCEL_SECONDS = 30.0
"""How long a producer may take to stop if the request does not say."""

_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ControlData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all control data."""

    def fields(self) -> dict[str, Any]:
        """As the `d` of an envelope: what is not known is left out."""
        fields: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return fields


Data = TypeVar("Data", bound=ControlData)


def read(kind: type[Data], envelope: Envelope) -> Data:
    """The control data of an envelope; no data reads as an empty map. MessageError(BAD_MESSAGE) says what is wrong."""
    value = envelope.value
    try:
        return msgspec.convert({} if value is None else value, kind)
    except msgspec.ValidationError as error:
        expected = _EXPECTED.get(kind, f"the data of `{envelope.type}`")
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{expected}: {error}", envelope.id) from None


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
    """A secret: whoever names it takes the session up."""
    user: str | None = None
    heartbeat: int
    """Milliseconds between two pings of the server; 0 for none."""
    limits: Limits


class Authenticated(ControlData):
    """The answer to `auth`."""

    user: str | None
    session: str
    resumed: bool | UnsetType = UNSET
    """Only where a session was to be taken up: whether it was."""


class Subscribed(ControlData, omit_defaults=False):
    """The answer to a `sub` that asked for history. The envelope's offset and epoch are where live messages begin."""

    recovered: bool = True
    """False: something that was asked for may be missing; a `gap` says what."""
    count: int = 0
    """Messages of history that follow."""


class Published(ControlData):
    """The answer to `pub`."""

    id: str


class Refusal(ControlData, omit_defaults=False):
    """The data of `err`."""

    code: str = ""
    message: str = "refused without a reason"


class GapReason(StrEnum):
    """Why messages will not come."""

    EXPIRED = "expired"  # the stream no longer holds them (age, length or size limit)
    EPOCH = "epoch"  # the stream was recreated: offsets start again
    SLOW = "slow"  # they were dropped, because this client did not keep up on an ephemeral channel


class GapData(ControlData, kw_only=True, rename={"first": "from", "last": "to"}):
    """The data of `gap`: offsets that may be missing, or how many messages."""

    first: int | None = None
    last: int | None = None
    reason: str
    count: int | None = None


# --- client to server ---------------------------------------------------------------------------------------------


class Subscribe(ControlData, forbid_unknown_fields=True):
    """Where a `sub` without an offset begins; by default with what comes from now on."""

    last: Annotated[int, Meta(ge=1, le=MAX_LAST)] | None = None
    """With the newest so many stored messages."""
    start: bool = False
    """With the oldest stored message."""
    snapshot: bool = False
    """With the newest message; on a task channel, with the task's snapshot."""
    lines: Annotated[int, Meta(ge=0, le=MAX_LINES)] = DEFAULT_LINES
    """Of a snapshot: so many of the newest lines of output."""


class Resume(ControlData, forbid_unknown_fields=True):
    """The data of an `auth` that takes up a session: its id, and how far each channel was received."""

    session: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
    positions: dict[str, tuple[_Offset, str]] = {}
    """Channel -> (offset, epoch)."""


class CallData(ControlData):
    """The data of a `call` with one of the verbs that the engine knows. A verb of the application's own may come with
    any data.
    """

    by: Annotated[str, Meta(max_length=64)] | None = None
    """Who asks, as viewers shall see it; only for callers without a user name."""
    deadline: Annotated[float, Meta(gt=0, le=86_400)] = CANCEL_SECONDS
    """Of a cancel: seconds until the end is forced."""
    ask: Annotated[str, Meta(max_length=256)] | None = None
    """Of an answer: the question's id; None: the one that is open."""
    value: Any = UNSET
    force: bool = False
    """Of a cancel: end the task even if no producer is attached."""


_EXPECTED: dict[type[ControlData], str] = {
    Subscribe: 'the data of `sub` is {"last": N}, {"start": true} or {"snapshot": true}',
    Resume: 'to take up a session the data of `auth` is {"session": ID, "positions": {...}}',
}
