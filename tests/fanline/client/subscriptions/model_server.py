"""A server with the log of one durable channel, by the rules of docs/reference/protocol.md, and local subscriptions
that know what they must be given. Nothing moves by itself: what the server sends waits in `outgoing`.
"""

from collections import deque
from typing import Any, NamedTuple

import fanline
from fanline.client.message import is_snapshot
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import Authenticated, ErrorData, Subscribed
from fanline.protocol.messages.commands import Authenticate, Subscribe
from fanline.protocol.messages.control_data import read
from fanline.protocol.messages.notices import GapData
from fanline.protocol.tasks.events import TaskEvent
from tests.fanline.client.subscriptions.recording_shell import CHANNEL, Local


class Entry(NamedTuple):
    """A stored message."""

    offset: int
    previous: int
    """What the server says it follows on."""


class ModelServer:
    """`tasks`: the channel is a task, so that each gap is followed by a snapshot."""

    def __init__(self, *, tasks: bool) -> None:
        self.tasks = tasks
        self.life = 1
        self.lives: dict[str, list[Entry]] = {"1": []}
        """Everything that was ever published, by epoch."""
        self.floor = 0
        """Of this life: what has an offset up to here is no longer stored."""
        self.subscribed = False
        self.routed = False
        """The route has joined the channel, and there was no `sub` since."""
        self.session: bool | None = None
        """Whether the session that the client may resume holds the channel; None: there is no such session."""
        self.outgoing: deque[Envelope] = deque()
        self.refusals: deque[str] = deque()
        """Codes for the next `sub` commands."""
        self.refused: set[str] = set()
        """Codes that were sent."""
        self.firsts: dict[str, set[int]] = {}
        """With which offsets the histories for `last` and `start` began."""
        self.tail_lost = False
        """The newest message was lost on the way to a subscribed client, which cannot know before the next one."""

    @property
    def epoch(self) -> str:
        return str(self.life)

    @property
    def entries(self) -> list[Entry]:
        return self.lives[self.epoch]

    @property
    def last(self) -> int:
        return self.entries[-1].offset if self.entries else 0

    @property
    def stored(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.offset > self.floor]

    # --- what happens to the channel ------------------------------------------------------------------------------

    def publish(self, step: int, *, lost: bool = False, unknown: bool = False) -> None:
        """Store a message; `unknown`: it claims to follow on one that the server knows nothing of."""
        offset = self.last + step
        entry = Entry(offset, offset - 1 if unknown else self.last)
        self.entries.append(entry)
        self.tail_lost = self.subscribed and lost
        if self.subscribed and not lost:
            self._send(entry)

    def expire(self, count: int) -> None:
        self.floor = max([self.floor, *(entry.offset for entry in self.stored[:count])])

    def recreate(self) -> None:
        self.life += 1
        self.lives[self.epoch] = []
        self.floor = 0
        if self.subscribed:
            self._send_gap(GapData(first=0, last=0, reason="epoch"))
            if self.tasks:
                self._send_snapshot()

    def repeat(self, number: int) -> None:
        """Send an old message again."""
        if self.subscribed and self.stored:
            self._send(self.stored[number % len(self.stored)])

    def disconnect(self) -> None:
        self.subscribed = self.routed = False
        self.outgoing.clear()

    def join_route(self) -> None:
        """The route of a new connection joins the channel, which is answered as if it had been asked for."""
        self.routed = True
        self._join(Envelope(MessageType.SUB), known=True)

    # --- commands ---------------------------------------------------------------------------------------------------

    def perform(self, command: Envelope) -> None:
        if command.type == MessageType.UNSUB:
            self.subscribed = self.routed = False
        elif command.type == MessageType.PING:
            self._reply(MessageType.PONG, command)
        elif command.type == MessageType.AUTH:
            self._resume(command)
        else:
            self._sub(command)

    def _resume(self, command: Envelope) -> None:
        wanted = read(Authenticate, command)
        if self.session:
            offset, epoch = wanted.positions.get(CHANNEL, (None, None))
            self._sub(Envelope(MessageType.SUB, offset=offset, epoch=epoch))
        data = Authenticated(user=None, session="s", resumed=self.session is not None)
        self.outgoing.append(Envelope(MessageType.OK, id=command.id, data=data.fields()))

    def _sub(self, command: Envelope) -> None:
        known = command.epoch in (None, self.epoch)
        code = self.refusals.popleft() if self.refusals else None
        if code is None and known and (command.offset or 0) > self.last:
            code = "bad_offset"
        if code is not None:  # and nothing is done
            self.refused.add(code)
            self._reply(MessageType.ERR, command, data=ErrorData(code=code, message="no").fields())
        elif self.subscribed and not self.routed and command.offset is None and command.data is None:
            self._reply(MessageType.OK, command)
        else:
            self._join(command, known=known)

    def _join(self, command: Envelope, *, known: bool) -> None:
        start = read(Subscribe, command)
        history = self._history(command, start, known=known)
        missed = command.offset is not None and known and command.offset < self.floor
        complete = known and not missed
        snapshot = start.snapshot or (self.tasks and not complete)
        count = len(history) + snapshot
        asked = command.offset is not None or command.data is not None
        data = Subscribed(recovered=complete, count=count).fields() if asked else None
        self._reply(MessageType.OK, command, offset=self.last, epoch=self.epoch, data=data)
        if not known:
            self._send_gap(GapData(first=0, last=0, reason="epoch"))
        if missed:
            self._send_gap(GapData(first=(command.offset or 0) + 1, last=self.floor, reason="expired"))
        for entry in history:
            self._send(entry)
        if snapshot:
            self._send_snapshot()
        if history and command.offset is None:
            self.firsts.setdefault(repr(start), set()).add(history[0].offset)
        self.subscribed, self.tail_lost = True, False
        self.routed = self.routed and command.id is None and command.offset is None

    def _history(self, command: Envelope, start: Subscribe, *, known: bool) -> list[Entry]:
        if start.last is not None:
            return self.stored[-start.last :]
        if start.start or not known:
            return self.stored
        if command.offset is None:
            return []
        return [entry for entry in self.stored if entry.offset > command.offset]

    # --- the wire ---------------------------------------------------------------------------------------------------

    def _reply(self, kind: str, command: Envelope, **fields: Any) -> None:
        self.outgoing.append(Envelope(kind, id=command.id, channel=CHANNEL, **fields))

    def _send(self, entry: Entry) -> None:
        self.outgoing.append(
            Envelope(MessageType.PUB, channel=CHANNEL, offset=entry.offset, previous=entry.previous, data=entry.offset)
        )

    def _send_gap(self, data: GapData) -> None:
        self.outgoing.append(Envelope(MessageType.GAP, channel=CHANNEL, epoch=self.epoch, data=data.fields()))

    def _send_snapshot(self) -> None:
        envelope = Envelope(MessageType.PUB, channel=CHANNEL, offset=self.last, event=TaskEvent.SNAPSHOT, data={})
        self.outgoing.append(envelope)


class CheckedLocal(Local):
    """A local subscription that asserts the law: from its start position on it is given the whole log, in order, each
    message once; what is missing is a gap, and stands for nothing that is still stored. A viewer begins with a snapshot
    and gets another one after each gap.
    """

    def __init__(self, server: ModelServer, start: StartPosition) -> None:
        super().__init__(CHANNEL, start)
        self.server = server
        self.viewer = start.snapshot
        self.reached: int | None = None
        self.epoch = ""
        self.torn = False

    def begin(self, position: fanline.Position | None) -> None:
        assert not self.begun or self.viewer or not self.got, "a second beginning"
        assert position is None or position.offset <= self.server.last or position.epoch != self.server.epoch
        super().begin(position)
        self.epoch = self.server.epoch if position is None else position.epoch or ""
        self.reached = None if position is None else position.offset

    def put(self, item: fanline.Message | fanline.Gap) -> None:
        super().put(item)
        assert self.begun, "given before it began"
        if isinstance(item, fanline.Gap):
            self._check_gap(item)
        elif is_snapshot(item):
            assert self.viewer, "a snapshot for one that is no viewer"
            assert self.torn or self.reached is None, "a snapshot that is not due"
            self.reached, self.epoch, self.torn = item.offset, item.epoch or "", False
        else:
            self._check_message(item)

    def end(self, error: fanline.FanlineError) -> None:
        super().end(error)
        assert isinstance(error, fanline.ServerError)
        assert error.code in self.server.refused

    def _check_message(self, message: fanline.Message) -> None:
        if self.reached is None:
            assert not self.viewer, "a viewer begins with a snapshot"
            assert message.offset in self.server.firsts[repr(self.cursor.start.history)]
            self.epoch = message.epoch or ""
        else:
            assert message.epoch == self.epoch
            following = [entry for entry in self.server.lives[self.epoch] if entry.offset > self.reached]
            assert message.offset == following[0].offset, f"{message.offset} follows on {self.reached}"
        self.reached = message.offset

    def _check_gap(self, gap: fanline.Gap) -> None:
        if gap.reason == "epoch":
            assert gap.epoch != self.epoch, "a new life that is none"
            self.reached, self.epoch = 0, gap.epoch or ""
        else:
            assert self.reached is not None
            assert gap.first is not None
            assert gap.last is not None
            assert gap.first <= self.reached + 1 <= gap.last  # it may begin for another one, who has less
            assert gap.epoch == self.epoch
            if gap.epoch == self.server.epoch:
                assert not [each for each in self.server.stored if self.reached < each.offset <= gap.last]
            self.reached = gap.last
        self.torn = self.viewer

    def check_complete(self) -> None:
        """Everything has been delivered."""
        assert self.begun
        assert not self.torn, "the snapshot after a gap never came"
        assert (self.reached, self.epoch) == (self.server.last, self.server.epoch)
