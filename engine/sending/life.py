"""The life of a connection: its states in one table, and the one owner of its deadline.

A connection is open until one side says goodbye or the peer is gone. The client, the server, an outbox that overflows
and a deadline that passes all end it through a method of Life, and the first reason stands. What the table has no entry
for changes nothing, so ending a connection twice is safe.
"""

import math
from enum import Enum, auto

import trio

from fanline.protocol.errors import CloseReason


class LifeState(Enum):
    OPEN = auto()  # both sides speak
    CLOSING = auto()  # our close frame is on its way, and nothing is sent after it; the client may still read
    PARTED = auto()  # both sides have said goodbye
    LOST = auto()  # the peer is gone without a word


class LifeEvent(Enum):
    CLOSE = auto()  # we end it
    GOODBYE = auto()  # the client's close frame has arrived
    LOSE = auto()  # the socket has failed, or the client has ended the stream


LIFE: dict[tuple[LifeState, LifeEvent], LifeState] = {
    (LifeState.OPEN, LifeEvent.CLOSE): LifeState.CLOSING,
    (LifeState.OPEN, LifeEvent.GOODBYE): LifeState.PARTED,
    (LifeState.OPEN, LifeEvent.LOSE): LifeState.LOST,
    (LifeState.CLOSING, LifeEvent.GOODBYE): LifeState.PARTED,
    (LifeState.CLOSING, LifeEvent.LOSE): LifeState.LOST,
    (LifeState.PARTED, LifeEvent.LOSE): LifeState.LOST,
}


class Life:
    """One connection's state, why it ended, and the cancel scope its task runs in.

    The scope's deadline is the liveness check: every sign of life moves it on, and when it passes the connection ends.
    """

    __slots__ = ("reason", "scope", "state")

    def __init__(self) -> None:
        self.state = LifeState.OPEN
        self.reason: CloseReason | None = None
        """Why it ended; None while it is open."""
        self.scope = trio.CancelScope()

    @property
    def is_open(self) -> bool:
        """Whether both sides speak."""
        return self.state is LifeState.OPEN

    def close(self, reason: CloseReason) -> None:
        """Our close frame has been sent or queued."""
        self._move(LifeEvent.CLOSE, reason)

    def part(self) -> None:
        """The client's close frame has arrived, and is answered."""
        self._move(LifeEvent.GOODBYE, CloseReason.NORMAL)

    def lose(self) -> None:
        """The peer is gone: end the connection's task."""
        self._move(LifeEvent.LOSE, CloseReason.ABNORMAL)
        self.scope.cancel()

    def extend(self, seconds: float) -> None:
        """The client has shown that it lives: it may be silent for `seconds` from now."""
        self.scope.deadline = max(self.scope.deadline, trio.current_time() + seconds)

    def begin(self, seconds: float) -> None:
        """The connection's task begins, or reads again; the client may be silent for `seconds`."""
        self.scope.deadline = trio.current_time() + seconds

    def suspend(self) -> None:
        """The client is not read for a while, so its silence means nothing until `begin`."""
        self.scope.deadline = math.inf

    def expire(self) -> None:
        """Let the connection's task end at its next checkpoint, after a last chance to send."""
        self.scope.deadline = trio.current_time()

    def _move(self, event: LifeEvent, reason: CloseReason) -> None:
        target = LIFE.get((self.state, event))
        if target is not None:
            self.state = target
            self.reason = self.reason or reason
