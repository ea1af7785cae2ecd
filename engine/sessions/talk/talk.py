"""The commands that clients of the plain dialect alone have, and that are more than a `pub`."""

from collections.abc import Awaitable, Callable

from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import Announcer
from fanline.engine.sessions.talk.receipts import Receipts
from fanline.engine.sessions.talk.rooms import Rooms
from fanline.protocol.dialects.plain_commands import PlainCommand

Say = Callable[[Session, PlainCommand], Awaitable[None]]
"""Performs a command that has no answer. MessageError, BusError."""


class Talk:
    """`says`: by the type of the client's message."""

    def __init__(self, announcer: Announcer) -> None:
        self.rooms = Rooms(announcer)
        receipts = Receipts(announcer)
        self.says: dict[str, Say] = {
            "user_status": self.rooms.set_status,
            "message_read": receipts.message_read,
        }
