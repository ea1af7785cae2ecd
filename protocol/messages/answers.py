"""What the server answers: the data of `ok` to each command, and of `err`; and of presence, asked for or not."""

from typing import Any, Self

import msgspec
from msgspec import UNSET, UnsetType

from fanline.protocol.envelope import Envelope, nested
from fanline.protocol.messages.control_data import ControlData


class Authenticated(ControlData):
    """The answer to `auth`."""

    user: str | None
    session: str
    resumed: bool | UnsetType = UNSET
    """Whether the session was taken up; left out if the client named none."""
    expires: int | None = None
    """Unix milliseconds at which the client's token ends."""


class Subscribed(ControlData, omit_defaults=False):
    """The answer to a `sub` that asked for history. The envelope's offset and epoch are where live messages begin; of a
    long history, where its first part ends.
    """

    recovered: bool = True
    """False: something the client asked for may be missing, and a `gap` says what."""
    count: int = 0
    """Messages of history that follow, up to that offset."""


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


class ErrorData(ControlData, omit_defaults=False):
    """The data of `err`. `error_of` reads it."""

    code: str = ""
    """An ErrorCode; a text, because a newer server may have others."""
    message: str = "refused without a reason"
    """A sentence for a person."""


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
