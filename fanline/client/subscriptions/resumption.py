"""The resumption of a session: one `auth` in place of a `sub` for each channel. Without I/O.

The server answers with an `ok` without an id for each channel of the session, and the history behind it. What a route
joins is answered in the same form, but before the first command of a client. So a `ping` goes first: what comes without
an id after its answer, and before that of the `auth`, belongs to the session.
"""

from collections.abc import Mapping
from enum import StrEnum

from fanline.client.message import Position
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.commands import Authenticate


class ResumptionState(StrEnum):
    NONE = "none"  # no session is being resumed
    ASKED = "asked"  # `ping` and `auth` are sent
    ANSWERING = "answering"  # the `ping` is answered: an `ok` without an id is for a channel of the session


class ResumptionEvent(StrEnum):
    ASKED = "auth sent"
    MARKED = "pong"
    ANSWERED = "auth answered"
    DISCONNECTED = "disconnected"


_ENDS = {ResumptionEvent.ANSWERED: ResumptionState.NONE, ResumptionEvent.DISCONNECTED: ResumptionState.NONE}

RESUMPTION_TRANSITIONS: dict[ResumptionState, dict[ResumptionEvent, ResumptionState]] = {
    ResumptionState.NONE: {
        ResumptionEvent.ASKED: ResumptionState.ASKED,
        ResumptionEvent.DISCONNECTED: ResumptionState.NONE,
    },
    ResumptionState.ASKED: {ResumptionEvent.MARKED: ResumptionState.ANSWERING, **_ENDS},
    ResumptionState.ANSWERING: _ENDS,
}
_MARK, _AUTH = "~mark", "~session"  # ids that no program would give to a message


class Resumption:
    def __init__(self) -> None:
        self.state = ResumptionState.NONE
        self._routed: set[str] = set()  # channels that the route has joined on this connection

    @property
    def under_way(self) -> bool:
        return self.state is not ResumptionState.NONE

    def begin(self, session: str, places: Mapping[str, Position]) -> list[Envelope]:
        """The commands that resume a session, each of whose channels is received up to its place."""
        self._move(ResumptionEvent.ASKED)
        positions = {channel: (place.offset, place.epoch or "") for channel, place in places.items()}
        data = Authenticate(session=session, positions=positions).fields()
        return [Envelope(MessageType.PING, id=_MARK), Envelope(MessageType.AUTH, id=_AUTH, data=data)]

    def disconnected(self) -> None:
        """The connection is lost."""
        self._move(ResumptionEvent.DISCONNECTED)
        self._routed.clear()

    def take(self, envelope: Envelope) -> ResumptionEvent | None:
        """Take an answer to one of the two commands; None if it is none."""
        if not self.under_way or envelope.id not in (_MARK, _AUTH):
            return None
        event = ResumptionEvent.MARKED if envelope.id == _MARK else ResumptionEvent.ANSWERED
        if event in RESUMPTION_TRANSITIONS[self.state]:
            self._move(event)
        return event

    def concerns(self, envelope: Envelope) -> bool:
        """Whether an `ok` or `err` is for a channel of the session."""
        if envelope.id is not None or envelope.channel is None:
            return False
        if self.state is ResumptionState.ANSWERING:
            return True
        if envelope.type == MessageType.OK:
            self._routed.add(envelope.channel)
        return False

    def is_routed(self, channel: str) -> bool:
        """Whether the route has joined a channel, so that it stays subscribed without a local subscription."""
        return channel in self._routed

    def _move(self, event: ResumptionEvent) -> None:
        self.state = RESUMPTION_TRANSITIONS[self.state][event]
