"""Start positions: from where on a client wants a channel, as its `sub` says it. Pure."""

from typing import NamedTuple

from msgspec import UNSET

from fanline.protocol.envelope import Envelope
from fanline.protocol.messages.commands import Subscribe
from fanline.protocol.messages.control_data import read


class Live(NamedTuple):
    """What comes from now on."""


class After(NamedTuple):
    """Everything after an offset: the client resumes. What is gone is reported by a `gap`."""

    offset: int
    epoch: str | None = None
    """The epoch of the offset; None: not known, and not checked."""


class StoredMessages(NamedTuple):
    """What is stored; messages that are gone are not missed."""

    newest: int | None = None
    """Only the newest messages, this many; None: all."""


class TaskSnapshot(NamedTuple):
    """The snapshot of a task, with the newest `lines` lines of its output. Of another channel: its newest message."""

    lines: int


StartPosition = Live | After | StoredMessages | TaskSnapshot


def presence_of(command: Envelope) -> bool | None:
    """Whether a `sub` asks for presence; None: it leaves that as it is. MessageError(BAD_MESSAGE)."""
    asked = UNSET if command.data is None else read(Subscribe, command).presence
    return None if asked is UNSET else asked


def start_of(command: Envelope) -> StartPosition:
    """The start position in a `sub`; MessageError(BAD_MESSAGE) if it makes no sense."""
    if command.offset is not None:
        return After(command.offset, command.epoch)
    if command.data is None:
        return Live()
    asked = read(Subscribe, command)
    if asked.snapshot:
        return TaskSnapshot(asked.lines)
    if asked.last is not None:
        return StoredMessages(newest=asked.last)
    return StoredMessages() if asked.start else Live()
