"""What a subscriber receives, what a publisher is told, and the place in a channel that both speak of."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from fanline.protocol.envelope import Envelope


class Position(NamedTuple):
    """A place in a durable channel: everything up to `offset` has been received. Plain enough to be stored as JSON."""

    offset: int
    epoch: str | None
    """Of which life of the channel the offset is. None: not known, and not checked."""


class Published(NamedTuple):
    """The server's answer to a publish."""

    id: str
    offset: int | None
    """Where the message is stored; None on an ephemeral channel, which stores nothing."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a channel. What its sender left out is None."""

    channel: str
    data: Any
    """The published value: what JSON can hold, and `bytes` too with the cbor codec."""
    event: str | None = None
    """Its kind, such as "task_progress"."""
    id: str | None = None
    """Unique per message: the key to recognise a repeated one."""
    sender: str | None = None
    """User who published it, where the server knows."""
    time: int | None = None
    """When it was published, Unix milliseconds."""
    offset: int | None = None
    """Place in the channel, where the channel is durable. Offsets grow, with jumps: others use the same numbers."""
    previous: int | None = None
    """Offset of the message before it, as the server hands them out."""
    epoch: str | None = None
    """Of which life of the channel the offset is."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that will not come, told in their place between the messages around them."""

    channel: str
    reason: str
    """"expired": no longer stored. "epoch": the channel began anew, and its offsets with it; what was published after
    the last message of its former life is not known. "slow": this client did not keep up on an ephemeral channel.
    "unexplained": the server cannot say what became of them."""
    first: int | None = None
    """Lowest offset that may be missing; None where there is none to tell."""
    last: int | None = None
    """Highest offset that may be missing. The message after it is the next to come."""
    epoch: str | None = None
    """The epoch of `last`."""
    count: int | None = None
    """How many messages are missing, where that is known."""

    def __str__(self) -> str:
        if self.reason == "epoch":
            return f"{self.channel} began anew: what it held before is gone, and offsets start again"
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
    )
