"""The life of a durable channel in one worker: it hands out messages only while it is steady."""

from enum import Enum, auto


class DurableState(Enum):
    OPENING = auto()  # listening, but it is not known from which offset on
    STEADY = auto()  # every message is handed out as it comes
    RECOVERING = auto()  # something may be missing: messages are held until the stream has been asked


class DurableEvent(Enum):
    OPENED = auto()  # the stream has said where the channel stands
    DOUBTED = auto()  # a hole was found, or the bus was away
    RECOVERED = auto()  # what was missing is here, or known to be gone


DURABLE: dict[tuple[DurableState, DurableEvent], DurableState] = {
    (DurableState.OPENING, DurableEvent.OPENED): DurableState.STEADY,
    (DurableState.STEADY, DurableEvent.DOUBTED): DurableState.RECOVERING,
    (DurableState.RECOVERING, DurableEvent.RECOVERED): DurableState.STEADY,
}
"""What has no entry changes nothing: a channel that is being opened or recovered is compared with its stream anyway."""
