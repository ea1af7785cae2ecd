"""What a subscriber receives."""

from dataclasses import dataclass
from typing import Any

from protocol.envelope import Envelope


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
    """Position in the channel, where the channel is durable."""


def from_envelope(envelope: Envelope) -> Message:
    """The message in a `pub` envelope."""
    return Message(
        channel=envelope.channel or "",
        data=envelope.value,
        event=envelope.event,
        id=envelope.id,
        sender=envelope.sender,
        time=envelope.time,
        offset=envelope.offset,
    )
