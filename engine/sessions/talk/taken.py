"""The receipt `delivered`, where other members are: the kernel has taken a message for one of them."""

from typing import NamedTuple, NoReturn

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.audience.omissions import FindOutbox
from fanline.engine.channels.hub import Hub
from fanline.engine.sending.outbox import Outbox
from fanline.engine.sessions.connection_ids import process_of
from fanline.engine.sessions.talk.sent import taken_subject
from fanline.protocol.envelope import Envelope

LOOK_SECONDS = 0.5
"""Between two looks at members who were slow."""
PATIENCE_SECONDS = 60.0
"""For how long they are looked at."""
MOST_SLOW = 1000
"""Messages that only slow members have; further ones get no receipt."""
MOST_MEMBERS = 20
"""Slow members of one message that are looked at. In a large channel where nobody reads, to look at all of them would
take longer than LOOK_SECONDS.
"""


class _Heard(NamedTuple):
    flush: int
    """The flushes before the one that sends it."""
    channel: Channel
    message: Envelope


class _Slow(NamedTuple):
    members: list[Outbox]
    message_id: str | None
    sender: str
    """The public id of the sender's connection."""
    until: float


class TakenMessages:
    """Tells the sender's worker that one of this worker's members has been sent a message. `find`: an outbox by the
    public id of its connection.
    """

    def __init__(self, bus: Bus, hub: Hub, find: FindOutbox) -> None:
        self._bus = bus
        self._hub = hub
        self._find = find
        self._heard: list[_Heard] = []
        self._slow: list[_Slow] = []
        self._any_slow = trio.Event()
        hub.on_said, hub.on_flushed = self._hear, self._flushed

    async def run(self) -> NoReturn:
        """Look at members who were slow, forever."""
        while True:
            await self._any_slow.wait()
            await trio.sleep(LOOK_SECONDS)
            now, slow = trio.current_time(), self._slow
            self._slow = [each for each in slow if now < each.until and not self._settled(each)]
            if not self._slow:
                self._any_slow = trio.Event()

    def _hear(self, channel: Channel, message: Envelope) -> None:
        self._heard.append(_Heard(self._hub.flushes, channel, message))

    def _flushed(self) -> None:
        if not self._heard:
            return
        heard, flushes = self._heard, self._hub.flushes
        self._heard = [each for each in heard if each.flush >= flushes]
        for each in heard:
            if each.flush < flushes:
                self._look(each.channel, each.message)

    def _look(self, channel: Channel, message: Envelope) -> None:
        connection, slow = message.excluded or "", list[Outbox]()
        sender = self._find(connection)
        for outbox in channel:
            if outbox is sender or (outbox.user is not None and outbox.user == message.sender):
                continue  # another connection of the sender's user is no other member
            if outbox.life.is_open and not outbox.backlog_bytes:
                self._tell(connection, message.id)
                return
            if len(slow) < MOST_MEMBERS:
                slow.append(outbox)
        if slow and len(self._slow) < MOST_SLOW:
            self._slow.append(_Slow(slow, message.id, connection, trio.current_time() + PATIENCE_SECONDS))
            self._any_slow.set()

    def _settled(self, slow: _Slow) -> bool:
        """Whether nothing more is to be done about a message: a member has it now, or all are gone."""
        members = [outbox for outbox in slow.members if outbox.life.is_open]
        if any(not outbox.backlog_bytes for outbox in members):
            self._tell(slow.sender, slow.message_id)
            return True
        return not members

    def _tell(self, connection: str, message_id: str | None) -> None:
        process = process_of(connection)
        if process is not None and message_id is not None:
            self._bus.tell(taken_subject(process), message_id.encode())
