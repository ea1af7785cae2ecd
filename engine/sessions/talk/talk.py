"""The commands that clients of the plain dialect alone have, and that are more than a `pub`."""

from collections.abc import Awaitable, Callable

import trio

from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.audience.omissions import FindOutbox
from fanline.engine.channels.hub import Hub
from fanline.engine.cluster.members import Members
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import Announcer
from fanline.engine.sessions.talk.board import Board
from fanline.engine.sessions.talk.documents import Documents
from fanline.engine.sessions.talk.receipts import Receipts
from fanline.engine.sessions.talk.rooms import Rooms
from fanline.engine.sessions.talk.sent import SentMessages
from fanline.engine.sessions.talk.taken import TakenMessages
from fanline.protocol.dialects.plain.commands import BOARD, PlainCommand

Say = Callable[[Session, PlainCommand], Awaitable[None]]
"""Performs a command that has no answer. MessageError, BusError."""


class Talk:
    """`says`: by the type of the client's message."""

    def __init__(
        self, bus: Bus, hub: Hub, find: FindOutbox, members: Members, permissions: Permissions, nursery: trio.Nursery
    ) -> None:
        self._nursery = nursery
        announcer = Announcer(bus, nursery)
        self.board = Board(bus, permissions, nursery)
        self.documents = Documents(bus, members, announcer)
        self.rooms = Rooms(announcer)
        self.sent = SentMessages(bus)
        self.taken = TakenMessages(bus, hub, find)
        self.receipts = Receipts(announcer)
        self.says: dict[str, Say] = {
            "user_status": self.rooms.set_status,
            "message_read": self.receipts.message_read,
            **dict.fromkeys(BOARD, self.board.tell),
        }

    async def start(self) -> None:
        """Answer the other workers, and listen to them. BusError: as for `Bus.answer`."""
        await self.board.start()
        await self.documents.start()
        await self.sent.start()

    def part(self, session: Session) -> None:
        """A session has ended: tell the others, soon."""
        if session.rooms:
            self.rooms.leave(session, *session.rooms)
        if self.documents.works(session):
            self._nursery.start_soon(self.documents.part, session)

    def leave(self, session: Session, channel: str) -> None:
        """A session is no longer subscribed to a channel."""
        self.rooms.leave(session, channel)
        if self.documents.works(session):
            self._nursery.start_soon(self.documents.drop, session, channel)
