"""Rooms: their members are notified of who comes and goes, and of a user's status."""

from typing import Any

from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import Announcer, user_fields
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.hooks.events import SessionJoined, SessionLeft

MAX_ROOMS = 100
"""In which one connection may be: a status goes to all of them."""


class Rooms:
    """Those in which the sessions of one worker are."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    def check_room(self, session: Session, channel: str) -> None:
        """MessageError(LIMIT_EXCEEDED) if a session may not be in one more room."""
        if channel not in session.rooms and len(session.rooms) >= MAX_ROOMS:
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, f"a connection may be in {MAX_ROOMS} rooms at most")

    async def enter(self, session: Session, channel: str, name: Any = None) -> None:
        """A session has subscribed to a room. `name`: what its client calls it. BusError."""
        if channel not in session.rooms:
            session.rooms |= {channel}
            session.events.say(SessionJoined, session, channel=channel)
            data = _fields(session, channel) | ({} if name is None else {"room_name": name})
            await self._announcer.tell(session, [channel], "session_joined", data)

    def leave(self, session: Session, *channels: str) -> None:
        """A session leaves these rooms, if it is there."""
        for channel in session.rooms.intersection(channels):
            session.rooms -= {channel}
            session.events.say(SessionLeft, session, channel=channel)
            self._announcer.tell_soon(session, [channel], "session_left", _fields(session, channel))

    async def set_status(self, session: Session, command: PlainCommand) -> None:
        """Tell all who share a room with the session's user. BusError."""
        data = {**user_fields(session.identity), "status": command.data}
        await self._announcer.tell(session, sorted(session.rooms), "user_status_update", data)


def room_answer(session: Session, channel: str) -> Envelope:
    """To `join_room` and `leave_room`."""
    return Envelope(MessageType.OK, channel=channel, data=user_fields(session.identity))


def _fields(session: Session, channel: str) -> dict[str, Any]:
    return {**user_fields(session.identity), "room_id": unescape_id(channel.partition(":")[2])}
