"""What a subscription yields, what `publish` returns, and the position in a channel that both refer to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fanline.protocol.envelope import Envelope
from fanline.protocol.tasks.events import TaskEvent


class Position(NamedTuple):
    """A position in a durable channel: everything up to `offset` has been received. It can be stored as JSON."""

    offset: int
    epoch: str | None
    """The life of the channel that the offset belongs to. None: not known, and not checked."""


def checked_position(place: Position | Sequence[Any]) -> Position:
    """A position, or what JSON has made of one. Raises TypeError or ValueError for anything else."""
    try:
        offset, epoch = place
    except (TypeError, ValueError) as error:
        raise type(error)(f"a position is an offset and an epoch, as in Position(7, 'x'), not {place!r}") from None
    if type(offset) is not int:
        raise TypeError(f"the offset of a position is an int, not {type(offset).__name__}")
    if epoch is not None:
        check_text("the epoch of a position", epoch)
    return Position(offset, epoch)


def check_text(what: str, value: object) -> None:
    """Raises TypeError: what is sent without being a text, the server could not read."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")


def check_number(name: str, value: object, least: int, most: int) -> None:
    """Raises TypeError or ValueError."""
    if type(value) is not int:
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} is a number from {least} to {most:,}, not {value}")


class Published(NamedTuple):
    """The server's answer to a publish: the `id` that the message was given; its `offset` if it is stored, else None;
    and whether it is a `duplicate` of one that was stored before, whose offset this is then.
    """

    id: str | None
    """The id that the server has given the message. None for a duplicate if the id of the first one is not known."""
    offset: int | None
    """Where the message is stored; None on an ephemeral channel, which stores nothing."""
    duplicate: bool = False
    """The message was stored before, under the same de-duplication id: the id and the offset are those of the first."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a channel. What its sender left out is None.

    `data` is the published value, `event` its kind, `sender` the user who published it, `time` Unix milliseconds, `id`
    that by which a repeat is recognised, `x` extra attributes. On a durable channel `offset` is its position in the
    life `epoch` of the channel, and `previous` that of the message before it.
    """

    channel: str
    data: Any
    """The published value: whatever JSON can hold, and with the cbor codec `bytes` as well."""
    event: str | None = None
    """Its kind, such as "task_progress"."""
    id: str | None = None
    """Unique per message: the key by which a repeated message is recognised."""
    sender: str | None = None
    """The user who published it, if the server knows."""
    time: int | None = None
    """When it was published, in Unix milliseconds."""
    offset: int | None = None
    """Its position in the channel, if the channel is durable. Offsets grow, but not by one: channels share them."""
    previous: int | None = None
    """The offset of the message before it, as the server sends them."""
    epoch: str | None = None
    """The life of the channel that the offset belongs to."""
    x: dict[str, Any] | None = None
    """Extra attributes: small values besides the data, such as `task_id`."""


class PastMessages(NamedTuple):
    """Part of what is stored of a channel: its `messages`, oldest first, and the position of the `next` part; None if
    that is all.
    """

    messages: list[Message]
    """Oldest first."""
    next: Position | None
    """From where on there are more in the direction that was asked for; None if there are none."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of `channel` that will not come, reported where they belong between those around them: why in `reason`,
    which ones in `first` and `last`, offsets in the epoch `epoch`, or how many in `count`, as far as that is known.
    str() is a sentence.
    """

    channel: str
    reason: str
    """"expired": no longer stored. "epoch": the channel was recreated, and its offsets start again; what was published
    after the last message of its former life is not known. "fault": the server fails to handle them; without offsets
    and count: what comes may be late. "slow": this client did not keep up on an ephemeral channel.
    "outage": of `project:*`, whose messages are not sent again. "unexplained": the server cannot say what became of
    them."""
    first: int | None = None
    """The lowest offset that may be missing; None if it is not known."""
    last: int | None = None
    """The highest offset that may be missing. The message after it is the next to come."""
    epoch: str | None = None
    """The epoch of `last`."""
    count: int | None = None
    """How many messages are missing, if that is known."""

    def __str__(self) -> str:
        if self.reason == "epoch":
            return f"{self.channel} was recreated: what it held before is gone, and offsets start again"
        if self.reason == "outage":
            return f"messages of {self.channel} may be missing: the server did not hear them for a while"
        if self.last is None and self.count is None:
            return f"messages of {self.channel} may be late ({self.reason})"
        which = f"{self.count} messages" if self.last is None else f"the messages from {self.first} to {self.last}"
        return f"{which} of {self.channel} are missing ({self.reason})"


def from_envelope(envelope: Envelope, epoch: str | None) -> Message:
    """The message in a `pub` envelope."""
    return Message(
        channel=envelope.channel or "",
        data=envelope.value,
        event=envelope.event,
        id=envelope.id,
        sender=envelope.sender,
        time=envelope.time,
        offset=envelope.offset,
        previous=envelope.previous,
        epoch=None if envelope.offset is None else epoch,
        x=envelope.extra,
    )


def is_snapshot(message: Message) -> bool:
    """Whether a message is the server's snapshot of a task. One that a producer published under the same event name
    follows on another message of the channel; the server's does not.
    """
    return message.previous is None and message.event == TaskEvent.SNAPSHOT
