"""The feed: one channel of a client, with all its subscriptions. Decides what each gets and what to ask. Pure; no I/O.

The server knows one subscription of a channel a connection, and sends on it one sequence; a `sub` with a position
makes it begin again from there. Each local subscription has a cursor that takes what follows on what it has: repeats
fall away, so that one who wants history gets it and the others do not notice; and a hole is never handed on but asked
for with a `sub` from the place of the one furthest behind.
"""

from typing import Any, NamedTuple

import msgspec
import trio

from fanline.backoff import Backoff
from fanline.client.cursor import Cursor, Verdict
from fanline.client.message import Gap, Message, from_envelope
from fanline.errors import ConnectionLost, ServerError
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode

BEHIND_SECONDS = 5.0
"""How long a server may not know an offset that another one has handed out: its own copy may still be on the way."""


class Ask(NamedTuple):
    """What one `sub` asks for."""

    offset: int | None = None
    epoch: str | None = None
    data: dict[str, Any] | None = None
    cursor: Cursor | None = None
    """Whose wish it is; None: all who were answered before go on."""

    def fields(self) -> dict[str, Any]:
        """What the `sub` says of it."""
        return {"offset": self.offset, "epoch": self.epoch, "data": self.data}


class _Told(msgspec.Struct, rename={"first": "from", "last": "to"}):
    """Data of a `gap` frame."""

    reason: str
    first: int | None = None
    last: int | None = None
    count: int | None = None


class Feed:
    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.cursors: list[Cursor] = []
        self.asking = False
        """A task asks for this feed, until `next_ask` is None."""
        self.heard = trio.Event()
        """The server has answered on this connection, or the connection is over."""
        self.pace = Backoff(base=0.05, cap=2.0)
        self._live = False  # the server of this connection sends
        self._missing = False  # somebody's hole has not been asked for
        self._underway = False  # a `sub` is: its answer tells from where on
        self._left = 0  # messages of history to come
        self._reach = 0  # offset up to which the last answer's history goes
        self._epoch: str | None = None
        self._asked_at: int | None = None  # place at which a hole was asked for
        self._asked_twice = False
        self._refused_since: float | None = None

    def reconnect(self) -> None:
        """There is a new connection, whose server knows nothing of us."""
        self.asking = self._live = self._underway = self._missing = False
        self._left = 0
        self._asked_at = None
        self.heard = trio.Event()
        for cursor in self.cursors:
            cursor.reconnect()

    @property
    def subscribed(self) -> bool:
        """The server sends this channel, or is about to."""
        return self._live or self._underway

    def leave(self, cursor: Cursor) -> bool:
        """Hand a cursor nothing more; True if nobody is left."""
        if cursor in self.cursors:
            self.cursors.remove(cursor)
        return not self.cursors

    def next_ask(self) -> Ask | None:
        """What to ask the server now; None if everybody has, or is about to get, what it wants."""
        placed = [cursor for cursor in self.cursors if cursor.placed]
        if placed and (not self._live or self._missing):
            self._underway = True
            return self._go_on(placed)
        for cursor in self.cursors:
            if not cursor.asked:
                cursor.asked = self._underway = True
                offset, epoch = cursor.wish.position or (None, None)
                return Ask(offset, epoch, cursor.wish.data, cursor)
        return None

    def _go_on(self, placed: list[Cursor]) -> Ask:
        last = min((cursor.last for cursor in placed if cursor.last is not None), default=None)
        self._asked_twice = self._missing and last == self._asked_at
        self._asked_at = last if self._missing else None
        self._missing = False
        return Ask(last, None if last is None else self._epoch)

    # --- answers ------------------------------------------------------------------------------------------------

    def answer(self, ask: Ask, reply: Envelope) -> None:
        """The server's `ok`. To be called before the next envelope is received: the history comes right behind it."""
        self._live, self._underway, self._refused_since = True, False, None
        self.pace.reset()
        self.heard.set()
        if reply.offset is None:
            if ask.cursor is not None:
                self._join_unplaced(ask.cursor)
            return
        data = reply.value if isinstance(reply.value, dict) else {}
        self._missing = False  # what was missed before the answer is compared below
        self._left, self._reach, self._epoch = int(data.get("count", 0)), reply.offset, reply.epoch
        recovered = bool(data.get("recovered", True))
        if ask.cursor is not None:
            self._begin(ask.cursor, ask, recovered=recovered)
        for cursor in self.cursors:
            if cursor.last is not None:
                self._compare(cursor, cursor.last, ask, recovered=recovered)

    def _join_unplaced(self, cursor: Cursor) -> None:
        """An answer without a place: the channel is ephemeral, or already flows to others here."""
        if self._epoch is None:
            cursor.begin(None, None)
        else:
            cursor.begin(max(self._reach, *(each.last or 0 for each in self.cursors)), self._epoch)

    def _begin(self, cursor: Cursor, ask: Ask, *, recovered: bool) -> None:
        if ask.offset is not None:
            cursor.begin(ask.offset, ask.epoch or self._epoch, recovered=recovered)
        else:
            cursor.begin(None if self._left else self._reach, self._epoch, recovered=recovered)

    def _compare(self, cursor: Cursor, last: int, ask: Ask, *, recovered: bool) -> None:
        """Will this answer's history bring a cursor up to date? Otherwise it has to be asked for."""
        if cursor.epoch != self._epoch:
            cursor.renew(self._epoch or "")
            last = 0
        covered = ask.offset is not None and ask.epoch in (None, self._epoch) and ask.offset <= last
        if covered and not self._left and recovered:  # if not, there is a gap to come, and to be told
            cursor.last = max(last, self._reach)
        elif not covered and last < self._reach:
            self._missing = True

    def refuse(self, ask: Ask, error: ServerError) -> bool:
        """The server's `err`; whether to ask again after a while. It has ended the channel for everybody here."""
        self._live = self._underway = False
        self.heard.set()
        if ask.cursor is not None and not ask.cursor.answered.is_set():
            self._end(ask.cursor, error)
            return False
        if self._refused_since is None:
            self._refused_since = trio.current_time()
        soon = trio.current_time() - self._refused_since < BEHIND_SECONDS
        if error.code == ErrorCode.UNAVAILABLE or (error.code == ErrorCode.BAD_OFFSET and soon):
            if ask.cursor is not None:
                ask.cursor.asked = False
            return True
        for cursor in [each for each in self.cursors if each.answered.is_set()]:
            self._end(cursor, error)
        return False

    def _end(self, cursor: Cursor, error: ServerError) -> None:
        self.leave(cursor)
        cursor.refuse(error)

    # --- messages -----------------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> bool:
        """Hand a `pub` or `gap` to whom it is for; True if something is missing that `next_ask` now asks for."""
        if envelope.type == MessageType.GAP:
            return self._receive_gap(envelope)
        hole = self._hand_out(from_envelope(envelope, self._epoch), envelope.previous, envelope.offset)
        self._left = self._left - 1 if self._left and (envelope.offset or 0) <= self._reach else 0
        return self._judge(hole=hole)

    def _receive_gap(self, envelope: Envelope) -> bool:
        try:
            told = msgspec.convert(envelope.value, _Told)
        except msgspec.ValidationError as error:
            raise ConnectionLost(f"the server sent a gap that cannot be read: {error}", final=True) from None
        if told.reason == "epoch":
            self._begin_anew(envelope.epoch or "")
            return False
        # It stands between two messages, like a message.
        gap = Gap(self.channel, told.reason, told.first, told.last, self._epoch, told.count)
        previous = None if told.first is None else told.first - 1
        return self._judge(hole=self._hand_out(gap, previous, told.last))

    def _begin_anew(self, epoch: str) -> None:
        if epoch == self._epoch:
            return  # known by the answer that went before
        self._epoch, self._left, self._reach = epoch, 0, 0
        for cursor in self.cursors:
            if cursor.epoch is not None:
                cursor.renew(epoch)

    def _hand_out(self, item: Message | Gap, previous: int | None, offset: int | None) -> bool:
        """Whether somebody misses what this follows on."""
        hole = False
        for cursor in self.cursors:
            if not cursor.answered.is_set():
                continue
            if offset is None:
                cursor.receiver.put(item)
            elif cursor.take(item, previous, offset) is Verdict.HOLE:
                hole = not self._insist(cursor, item, previous or 0, offset) or hole
        return hole

    def _insist(self, cursor: Cursor, item: Message | Gap, previous: int, offset: int) -> bool:
        """Whether a hole is to be taken as it is, since asking did not close it."""
        if self._underway or not self._asked_twice or cursor.last != self._asked_at:
            return False
        cursor.give_up_until(previous)
        return cursor.take(item, previous, offset) is Verdict.TAKEN

    def _judge(self, *, hole: bool) -> bool:
        """Whether to ask now: not while an answer or its history is on the way, which may close the hole."""
        self._missing = self._missing or hole
        return self._missing and not self._underway and not self._left
