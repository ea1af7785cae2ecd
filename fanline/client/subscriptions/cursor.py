"""The cursor: the place of one local subscription in one channel, which decides what it is handed next. Without I/O.

The rules:

- A local subscription begins where its start position says. The server is asked with one `sub` per cursor, and until
  the answer the cursor takes nothing: whatever arrives before then was sent for another cursor.
- From then on it takes only what follows on what it has (`last`). What it already has is a repeat and is left out; what
  follows on something that has not come shows a hole, and is left out until the server has been asked.
- A gap is taken like a message: it stands for the messages that are missing. After one, a viewer of a task needs a new
  snapshot.
- When the connection is lost, a cursor keeps its place, unless its history had not begun or its snapshot is still to
  come: it then begins again from its start position.
"""

from enum import Enum, StrEnum, auto
from typing import Any

from fanline.client.message import Gap, Position
from fanline.client.subscriptions.start import StartPosition


class CursorState(StrEnum):
    WAITING = "waiting"  # new; the server has not been asked for its start position
    ASKED = "asked"  # new; a `sub` with its start position is under way
    BEGINNING = "beginning"  # answered; the first message of its history says where it begins
    UNNUMBERED = "unnumbered"  # answered; the channel is ephemeral, so nothing can be missed or repeated
    PLACED = "placed"  # it has everything up to `last`
    TORN = "torn"  # placed, but after a gap; the snapshot that a viewer then needs is still to come
    LOST = "lost"  # it had begun, and has to begin again from its start position
    ASKED_AGAIN = "asked_again"  # the `sub` for that is under way
    ENDED = "ended"  # left, or ended by an error


class CursorEvent(StrEnum):
    ASKED = "sub sent"
    BEGUN_AT = "ok with an offset"
    BEGUN_WITH_HISTORY = "ok with history from anywhere"
    BEGUN_UNNUMBERED = "ok without an offset"
    REFUSED = "refused for now"
    FIRST = "first item"
    TORN = "gap"  # of a viewer; to all others a gap is an item like any other
    SNAPSHOT = "snapshot"
    UNEXPLAINED = "unexplained hole"  # of a viewer, too
    DISCONNECTED = "disconnected"
    ENDED = "ended"


_ANSWERS = {
    CursorEvent.BEGUN_AT: CursorState.PLACED,
    CursorEvent.BEGUN_WITH_HISTORY: CursorState.BEGINNING,
    CursorEvent.BEGUN_UNNUMBERED: CursorState.UNNUMBERED,
}
_ENDS = {CursorEvent.ENDED: CursorState.ENDED}

CURSOR_TRANSITIONS: dict[CursorState, dict[CursorEvent, CursorState]] = {
    CursorState.WAITING: {
        CursorEvent.ASKED: CursorState.ASKED,
        CursorEvent.DISCONNECTED: CursorState.WAITING,
        **_ENDS,
    },
    CursorState.ASKED: {**_ANSWERS, CursorEvent.DISCONNECTED: CursorState.WAITING, **_ENDS},
    CursorState.BEGINNING: {
        CursorEvent.FIRST: CursorState.PLACED,
        CursorEvent.DISCONNECTED: CursorState.LOST,
        **_ENDS,
    },
    CursorState.UNNUMBERED: {
        CursorEvent.BEGUN_AT: CursorState.PLACED,  # the namespace has been made durable
        CursorEvent.DISCONNECTED: CursorState.UNNUMBERED,
        **_ENDS,
    },
    CursorState.PLACED: {
        CursorEvent.TORN: CursorState.TORN,
        CursorEvent.UNEXPLAINED: CursorState.LOST,
        CursorEvent.DISCONNECTED: CursorState.PLACED,
        **_ENDS,
    },
    CursorState.TORN: {
        CursorEvent.TORN: CursorState.TORN,
        CursorEvent.SNAPSHOT: CursorState.PLACED,
        CursorEvent.UNEXPLAINED: CursorState.LOST,
        CursorEvent.DISCONNECTED: CursorState.LOST,
        **_ENDS,
    },
    CursorState.LOST: {
        CursorEvent.ASKED: CursorState.ASKED_AGAIN,
        CursorEvent.DISCONNECTED: CursorState.LOST,
        **_ENDS,
    },
    CursorState.ASKED_AGAIN: {
        **_ANSWERS,
        CursorEvent.REFUSED: CursorState.LOST,
        CursorEvent.DISCONNECTED: CursorState.LOST,
        **_ENDS,
    },
    CursorState.ENDED: {},
}


class Placement(Enum):
    """What a message or gap is to a cursor."""

    TAKEN = auto()  # the next one; the cursor has moved past it
    REPEATED = auto()  # nothing new, or sent for another cursor
    HOLE = auto()  # it follows on something that has not come


class Cursor:
    """`last` is the offset up to which nothing is missing: set in the states PLACED and TORN, else None.

    `owner` is the shell's object for the local subscription; the state machine does not look into it.
    """

    __slots__ = ("channel", "epoch", "last", "owner", "recovered", "start", "state")

    def __init__(self, owner: Any, channel: str, start: StartPosition) -> None:
        self.owner = owner
        self.channel = channel
        self.start = start
        self.state = CursorState.WAITING
        self.recovered = True
        """Whether the server had everything from the start position on when the subscription began."""
        self.last: int | None = None
        self.epoch: str | None = None

    @property
    def new(self) -> bool:
        """Whether it has not begun yet: the program is still entering the subscription."""
        return self.state in (CursorState.WAITING, CursorState.ASKED)

    @property
    def unasked(self) -> bool:
        """Whether the server has to be asked for its start position."""
        return self.state in (CursorState.WAITING, CursorState.LOST)

    @property
    def settled(self) -> bool:
        """Whether it can go on from where it is, without its start position."""
        return self.state in (CursorState.PLACED, CursorState.TORN, CursorState.UNNUMBERED)

    @property
    def position(self) -> Position | None:
        """Where it is; None without an offset."""
        return None if self.last is None else Position(self.last, self.epoch)

    def move(self, event: CursorEvent) -> None:
        self.state = CURSOR_TRANSITIONS[self.state][event]
        if self.state is CursorState.LOST:
            self.last = None

    # --- answers ------------------------------------------------------------------------------------------------

    def begin_at(self, last: int, epoch: str | None) -> None:
        """The server sends what comes after `last`."""
        self.move(CursorEvent.BEGUN_AT)
        self.last, self.epoch = last, epoch

    def begin_with_history(self, epoch: str | None) -> None:
        """The server sends history that may begin anywhere."""
        self.move(CursorEvent.BEGUN_WITH_HISTORY)
        self.epoch = epoch

    # --- messages -----------------------------------------------------------------------------------------------

    def take(self, previous: int | None, offset: int) -> Placement:
        """Place a message or gap that follows on `previous`, and move past it if it is the next one."""
        if self.last is None:
            return self._take_first(offset)
        if offset <= self.last:
            return Placement.REPEATED
        if previous is not None and previous > self.last:
            return Placement.HOLE
        self.last = offset
        return Placement.TAKEN

    def tear(self) -> None:
        """A gap was taken. Without a place (on an ephemeral channel) no snapshot can be due."""
        if self.start.snapshot and self.last is not None:
            self.move(CursorEvent.TORN)

    def take_snapshot(self, offset: int) -> Placement:
        """Place a snapshot, which the server sends for one viewer: as its beginning, or after a gap. To all other
        cursors it says nothing new, and it must not take them past what they have not been sent yet.
        """
        first = self.state is CursorState.BEGINNING
        due = self.state is CursorState.TORN and self.last is not None and offset >= self.last
        if not self.start.snapshot or not (first or due):
            return Placement.REPEATED
        self.move(CursorEvent.FIRST if first else CursorEvent.SNAPSHOT)
        self.last = offset
        return Placement.TAKEN

    def give_up(self, until: int) -> Gap:
        """The server cannot say what is missing up to `until`: the gap to hand out. It goes on after the gap; a viewer
        begins again with a snapshot.
        """
        assert self.last is not None
        gap = Gap(self.channel, "unexplained", self.last + 1, until, self.epoch)
        if self.start.snapshot:
            self.move(CursorEvent.UNEXPLAINED)
        else:
            self.last = until
        return gap

    def renew(self, epoch: str) -> Gap:
        """The channel has been recreated, and all of its new life is still to come. The gap to hand out, which stands
        for the rest of the old one.
        """
        if self.state is CursorState.BEGINNING:
            self.move(CursorEvent.FIRST)
        if self.start.snapshot:
            self.move(CursorEvent.TORN)
        self.last, self.epoch = 0, epoch
        return Gap(self.channel, "epoch", last=0, epoch=epoch)

    def _take_first(self, offset: int) -> Placement:
        if self.state is CursorState.UNNUMBERED:
            return Placement.TAKEN
        if self.state is not CursorState.BEGINNING:
            return Placement.REPEATED
        self.move(CursorEvent.FIRST)
        self.last = offset
        return Placement.TAKEN
