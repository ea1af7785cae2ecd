"""One channel of a client: what the server is asked about it, for all local subscriptions of the channel. No I/O.

The rules:

- The server knows one subscription of a channel per connection. A `sub` with a position or with history makes it begin
  again from there; channel_sequence.py decides what each local subscription gets of that.
- On a new connection, the session is resumed if there is one: that stands for the first `sub` of each channel that is
  part of it.
- At most one `sub` of a channel is under way. First, all cursors that have a place go on, from the place of the one
  furthest behind; then the others' start positions are asked for, one by one.
- What comes before the server has answered for the channel on this connection, comes because the route has joined it.
  It may be of another epoch than the cursors, so it is left out; the answer goes on from their places.
- What a cursor lacks is asked for once no answer and no history that may bring it is on its way.
- A refused `sub` has done nothing: a channel that was live is still live, and one that was not has left nothing behind
  in the server. A subscription that has not begun ends with the refusal. For all others the `sub` is repeated later if
  the refusal may pass; if not, those that it was sent for end.
"""

from collections.abc import Sequence

from fanline.base.backoff import Backoff
from fanline.client.message import Position
from fanline.client.subscriptions.channel_sequence import ChannelSequence
from fanline.client.subscriptions.channel_states import (
    CHANNEL_TRANSITIONS,
    MAY_ASK,
    SENT,
    SILENT,
    TO_ASK_AGAIN,
    ChannelEvent,
    ChannelState,
)
from fanline.client.subscriptions.cursor import Cursor, CursorEvent, CursorState
from fanline.client.subscriptions.effects import AskAgain, Effect, End, Send
from fanline.client.subscriptions.sub_requests import SubRequest, SubRequests
from fanline.errors import ServerError
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode

BEHIND_SECONDS = 5.0
"""How long a worker may not know an offset that another one has handed out: its own copy may still be on the way."""
_LIVE = ChannelState.LIVE  # looked up for every message, and slow on an enum


class ClientChannel:
    """Every method takes an event and returns its effects."""

    def __init__(self, channel: str, requests: SubRequests, pace: Backoff) -> None:
        self.channel = channel
        self.state = ChannelState.OFFLINE
        self._sequence = ChannelSequence(channel)
        self._requests = requests
        self._request = SubRequest()  # the one under way, in RESUMING, ASKING and REJOINING
        self._pace = pace  # of asking again
        self._due = 0.0  # when to ask again, in REFUSED and POSTPONED
        self._behind_since: float | None = None  # when this connection's server first did not know our offset

    @property
    def cursors(self) -> list[Cursor]:
        """The local subscriptions that have not ended."""
        return self._sequence.cursors

    @property
    def goes_on(self) -> bool:
        """Whether a local subscription goes on from where it is, without its start position."""
        return any(cursor.settled for cursor in self.cursors)

    def _move(self, event: ChannelEvent) -> None:
        self.state = CHANNEL_TRANSITIONS[self.state][event]

    # --- the connection and the local subscriptions -------------------------------------------------------------

    def connected(self) -> list[Effect]:
        """There is a new connection, whose server knows nothing of us."""
        self._move(ChannelEvent.CONNECTED)
        return self._ask_next()

    def resume(self) -> Position | None:
        """The session is being resumed on a new connection, and the channel may be part of it. Its place there, if it
        has one that the server can compare.
        """
        self._move(ChannelEvent.SESSION_NAMED)
        request = self._sequence.go_on(hole=False)
        known = request is not None and request.offset is not None and request.epoch is not None
        self._request = request if request is not None and known else SubRequest()
        return None if self._request.offset is None else Position(self._request.offset, self._request.epoch)

    def miss(self) -> list[Effect]:
        """The session is resumed, or is not; the channel was not part of it."""
        self._move(ChannelEvent.NOT_RESUMED)
        return self._ask_next()

    def disconnected(self) -> None:
        """The connection is lost."""
        self._move(ChannelEvent.DISCONNECTED)
        self._behind_since = None
        self._sequence.lose()

    def join(self, cursor: Cursor) -> list[Effect]:
        """A new local subscription."""
        self.cursors.append(cursor)
        return self._ask_next()

    def leave(self, cursor: Cursor) -> list[Effect]:
        """The end of a local subscription. The last one unsubscribes."""
        self._end(cursor)
        if self.cursors:
            return []
        silent = self.state in SILENT
        self._move(ChannelEvent.LEFT)
        self._requests.drop(self)
        return [] if silent else [Send(Envelope(MessageType.UNSUB, channel=self.channel))]

    def _end(self, cursor: Cursor) -> None:
        if cursor in self.cursors:
            self.cursors.remove(cursor)
            cursor.move(CursorEvent.ENDED)

    # --- asking -------------------------------------------------------------------------------------------------

    def ask_again(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self.state not in TO_ASK_AGAIN or now < self._due:
            return []
        self._move(ChannelEvent.DUE)
        return self._ask_next()

    def _ask_next(self) -> list[Effect]:
        """Send the next `sub`, if one is wanted and none is under way."""
        request = self._next_request() if self.state in MAY_ASK else None
        if request is None:
            return []
        self._move(ChannelEvent.ASKED)
        self._request = request
        return [Send(request.command(self.channel, self._requests.add(self)))]

    def _next_request(self) -> SubRequest | None:
        first = self.state is ChannelState.IDLE
        request = self._sequence.go_on(hole=not first) if first or self._sequence.missing else None
        if request is not None:
            return request
        for cursor in self.cursors:
            if cursor.unasked:
                cursor.move(CursorEvent.ASKED)
                offset, epoch = cursor.start.position or (None, None)
                return SubRequest(offset, epoch, cursor)
        return None

    # --- answers ------------------------------------------------------------------------------------------------

    def accept(self, reply: Envelope) -> list[Effect]:
        """The server's `ok`. The history that it announces comes right after it."""
        effects = self._sequence.join(self._request, reply)
        self._move(ChannelEvent.JOINED_WITH_HISTORY if self._sequence.replaying else ChannelEvent.JOINED)
        self._pace.reset()
        self._behind_since = None
        return effects + self._ask_next()

    def refuse(self, error: ServerError, now: float) -> list[Effect]:
        """The server's `err`."""
        asker = self._request.cursor
        has_begun = asker is None or asker.state is CursorState.ASKED_AGAIN
        if has_begun and self._may_pass(error, now):
            return self._postpone(now)
        self._move(ChannelEvent.REFUSED)
        concerned = [each for each in self.cursors if each is asker or (asker is None and each.settled)]
        for cursor in concerned:
            self._end(cursor)
        return [*(End(cursor, error) for cursor in concerned), *self._ask_next()]

    def _may_pass(self, error: ServerError, now: float) -> bool:
        if error.code != ErrorCode.BAD_OFFSET:
            return error.code == ErrorCode.UNAVAILABLE
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since < BEHIND_SECONDS

    def _postpone(self, now: float) -> list[Effect]:
        self._sequence.put_off(self._request)
        self._move(ChannelEvent.REFUSED_FOR_NOW)
        self._due = now + self._pace.next_delay()
        return [AskAgain(self.channel, self._due)]

    # --- messages -----------------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> list[Effect]:
        """A `pub` of the server."""
        if self.state not in SENT:
            return []
        effects = self._sequence.receive(envelope)
        return effects if self.state is _LIVE and not self._sequence.missing else self._proceed(effects)

    def is_new(self, envelope: Envelope) -> bool:
        """Whether a message that is about to be received is live, and none that was sent before."""
        return self.state not in SENT or self._sequence.is_new(envelope)

    def overhear(self, envelope: Envelope, own: Sequence[Cursor]) -> list[Effect]:
        """A live message or gap of one of the channels for which this pattern stands, whose own cursors are `own`."""
        return self._sequence.overhear(envelope, own)

    def receive_gap(self, envelope: Envelope) -> list[Effect]:
        """A `gap` of the server."""
        return self._proceed(self._sequence.receive_gap(envelope)) if self.state in SENT else []

    def _proceed(self, effects: list[Effect]) -> list[Effect]:
        if self.state is ChannelState.REPLAYING and not self._sequence.replaying:
            self._move(ChannelEvent.CAUGHT_UP)
        if self.state is ChannelState.LIVE and self._sequence.missing:
            return effects + self._ask_next()
        return effects
