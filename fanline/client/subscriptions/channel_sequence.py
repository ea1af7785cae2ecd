"""The sequence: what the server sends on one channel, handed to the cursors that it is for. Without I/O.

Each cursor takes what follows on what it has, so one sequence serves all: if one of them wants history, the others see
repeats and leave them out. What a cursor lacks is never skipped. It is `missing`, to be asked for; if the server has
answered twice without sending it, it is a gap ("unexplained").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fanline.client.control import read_control
from fanline.client.message import Gap, Message, from_envelope, is_snapshot
from fanline.client.subscriptions.cursor import Cursor, CursorEvent, CursorState, Placement
from fanline.client.subscriptions.effects import Begin, Deliver, Effect
from fanline.client.subscriptions.sub_requests import SubRequest
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import Subscribed
from fanline.protocol.messages.notices import GapData, GapReason

_IN_VAIN = 2  # answers that have left the same hole open


@dataclass(slots=True)
class Replay:
    """What the server sends after an `ok` with an offset."""

    after: int | None
    """Everything after this offset; None: from an offset that only the first message tells."""
    reach: int
    """Where history ends and live messages begin."""
    left: int
    """Messages of history to come."""
    complete: bool
    """Nothing that was asked for is missing in it."""


class Hole(NamedTuple):
    """The hole that was asked for last. There is none while it is asked for once more."""

    after: int | None
    answers: int
    """How many have left it open."""


class ChannelSequence:
    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.cursors: list[Cursor] = []
        self.missing = False
        """A cursor lacks something that has not been asked for."""
        self._epoch: str | None = None
        self._newest = 0  # offset of all that the server has sent in this epoch
        self._replay: Replay | None = None  # the last one of this connection; None on an ephemeral channel
        self._hole: Hole | None = None

    @property
    def replaying(self) -> bool:
        """Whether history is to come."""
        return self._replay is not None and self._replay.left > 0

    def lose(self) -> None:
        """The connection is lost, and with it everything that was on its way."""
        self._replay = self._hole = None
        self.missing = False
        for cursor in self.cursors:
            cursor.move(CursorEvent.DISCONNECTED)

    def go_on(self, *, hole: bool) -> SubRequest | None:
        """The request to go on from the place of the cursor furthest behind; None if no cursor has a place."""
        settled = [cursor for cursor in self.cursors if cursor.settled]
        if not settled:
            return None
        last = min((cursor.last for cursor in settled if cursor.last is not None), default=None)
        answers = self._hole.answers if self._hole is not None and self._hole.after == last else 0
        self.missing, self._hole = False, None
        return SubRequest(last, None if last is None else self._epoch, attempt=answers + 1 if hole else 0)

    def put_off(self, request: SubRequest) -> None:
        """A request was refused for now. What it asked for is still wanted."""
        if request.cursor is not None:
            request.cursor.move(CursorEvent.REFUSED)
        elif request.attempt:
            self.missing, self._hole = True, Hole(request.offset, request.attempt - 1)

    # --- answers ------------------------------------------------------------------------------------------------

    def join(self, request: SubRequest, reply: Envelope) -> list[Effect]:
        """The server's `ok`."""
        answer = read_control(Subscribed, reply)
        if reply.offset is None:
            return self._join_as_it_is(request.cursor)
        # An offset of another epoch says nothing about where the server begins, unless it says that nothing is missing.
        continued = request.epoch in (None, reply.epoch) or (request.offset is not None and answer.recovered)
        if continued and request.epoch is not None:
            self._go_on_in(reply.epoch, request.epoch)
        self._epoch, self._newest = reply.epoch, reply.offset
        after = request.offset if continued else None
        self._replay = replay = Replay(after, reply.offset, answer.count, answer.recovered)
        self.missing = False  # what was missing before is compared below
        if request.attempt:
            self._hole = Hole(request.offset, request.attempt)
        effects: list[Effect] = []
        if request.cursor is not None and request.cursor.state is not CursorState.ENDED:
            effects += self._begin(request if not continued else request._replace(epoch=None), request.cursor, replay)
        for cursor in self.cursors:
            effects += self._compare(cursor, replay)
        return effects

    def _join_as_it_is(self, cursor: Cursor | None) -> list[Effect]:
        """An answer without an offset: the channel is ephemeral, or is live already and goes on as it was."""
        if cursor is None or cursor.state is CursorState.ENDED:
            return []
        if self._replay is None:
            cursor.move(CursorEvent.BEGUN_UNNUMBERED)
        else:
            cursor.begin_at(self._newest, self._epoch)
        return [Begin(cursor, cursor.position)]

    def _begin(self, request: SubRequest, cursor: Cursor, replay: Replay) -> list[Effect]:
        if cursor.new:
            cursor.recovered = replay.complete
        if request.offset is not None:
            cursor.begin_at(request.offset, request.epoch or self._epoch)
        elif replay.left:
            cursor.begin_with_history(self._epoch)
        else:
            cursor.begin_at(replay.reach, self._epoch)
        return [Begin(cursor, cursor.position)]

    def _compare(self, cursor: Cursor, replay: Replay) -> list[Effect]:
        """Whether this replay brings a cursor up to date. If not, what it lacks has to be asked for."""
        if cursor.state is CursorState.UNNUMBERED:
            cursor.begin_at(replay.reach, self._epoch)
        if cursor.last is None:
            return []
        effects: list[Effect] = []
        if cursor.epoch != self._epoch:
            effects.append(Deliver(cursor, cursor.renew(self._epoch or "")))
        if replay.after is None or replay.after > cursor.last:
            self.missing = self.missing or cursor.last < replay.reach
        elif replay.complete and not replay.left:
            cursor.last = max(cursor.last, replay.reach)
        return effects

    # --- messages -----------------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> list[Effect]:
        """A `pub` of the server."""
        if envelope.epoch is not None:  # NATS was restarted, and nothing is missing
            self._go_on_in(envelope.epoch, self._epoch)
        item, offset = from_envelope(envelope, self._epoch), envelope.offset
        if offset is None:
            return self._deliver_to_all(item)
        if offset > self._newest:
            self._newest = offset
        if is_snapshot(item):
            effects = self._deliver_snapshot(item, offset)
        else:
            effects = self._deliver(item, item.previous, offset)
        if self._replay is not None and self._replay.left:
            self._replay.left = self._replay.left - 1 if offset <= self._replay.reach else 0
        return effects

    def is_new(self, envelope: Envelope) -> bool:
        """Whether a message that is about to be received is live, and none that was sent before."""
        return envelope.offset is None or envelope.offset > self._newest

    def overhear(self, envelope: Envelope, own: Sequence[Cursor]) -> list[Effect]:
        """A live message or gap of one of the channels for which this pattern stands; it has no place in a sequence.
        `own`: the cursors of that channel itself; a subscription of both gets it there.
        """
        owners = [cursor.owner for cursor in own]
        concerned = [cursor for cursor in self.cursors if not cursor.new and cursor.owner not in owners]
        if envelope.type == MessageType.PUB:
            item: Message | Gap = from_envelope(envelope, None)
        else:
            data = read_control(GapData, envelope)
            item = Gap(envelope.channel or "", data.reason, data.first, data.last, envelope.epoch, data.count)
        return [Deliver(cursor, item) for cursor in concerned]

    def receive_gap(self, envelope: Envelope) -> list[Effect]:
        """A `gap` of the server. It stands between two messages, like a message."""
        data = read_control(GapData, envelope)
        if data.reason == GapReason.EPOCH:
            return self._renew(envelope.epoch or "")
        gap = Gap(self.channel, data.reason, data.first, data.last, self._epoch, data.count)
        if data.last is None:
            return self._deliver_to_all(gap)
        self._newest = max(self._newest, data.last)
        effects = self._deliver(gap, None if data.first is None else data.first - 1, data.last)
        for effect in effects:
            if isinstance(effect, Deliver) and isinstance(effect.item, Gap) and effect.item.last == gap.last:
                effect.cursor.tear()
        return effects

    def _renew(self, epoch: str) -> list[Effect]:
        """The channel has been recreated: what comes now is all of its new life."""
        if epoch == self._epoch:
            return []  # known by the answer that went before
        self._epoch, self._newest, self._hole, self.missing = epoch, 0, None, False
        if self._replay is not None:
            self._replay.left = 0
        concerned = [each for each in self.cursors if each.last is not None or each.state is CursorState.BEGINNING]
        return [Deliver(cursor, cursor.renew(epoch)) for cursor in concerned]

    def _go_on_in(self, epoch: str | None, former: str | None) -> None:
        """The offsets of a former epoch go on in this one."""
        self._epoch = epoch
        for cursor in self.cursors:
            if cursor.epoch == former:
                cursor.epoch = epoch

    def _deliver(self, item: Message | Gap, previous: int | None, offset: int) -> list[Effect]:
        effects: list[Effect] = []
        for cursor in self.cursors:
            last = cursor.last
            placement = cursor.take(previous, offset)
            if placement is Placement.TAKEN:
                effects.append(Deliver(cursor, _after(last, item)))
            elif placement is Placement.HOLE:
                effects += self._meet_hole(cursor, item, previous or 0, offset)
        return effects

    def _meet_hole(self, cursor: Cursor, item: Message | Gap, previous: int, offset: int) -> list[Effect]:
        """What is missing before an item has to be asked for, or is given up if that was in vain."""
        hole, effects = self._hole, list[Effect]()
        if hole is not None and hole.after == cursor.last and hole.answers >= _IN_VAIN:
            effects.append(Deliver(cursor, cursor.give_up(previous)))
            if cursor.take(previous, offset) is Placement.TAKEN:
                return [*effects, Deliver(cursor, item)]
        self.missing = True
        return effects

    def _deliver_snapshot(self, item: Message, offset: int) -> list[Effect]:
        return [Deliver(each, item) for each in self.cursors if each.take_snapshot(offset) is Placement.TAKEN]

    def _deliver_to_all(self, item: Message | Gap) -> list[Effect]:
        """An item without an offset has no place in the sequence."""
        return [Deliver(cursor, item) for cursor in self.cursors if not cursor.new]


def _after(last: int | None, item: Message | Gap) -> Message | Gap:
    """An item for a cursor that has everything up to `last`. A gap may have been sent for one further behind."""
    if isinstance(item, Gap) and item.first is not None and last is not None and item.first <= last:
        return replace(item, first=last + 1)
    return item
