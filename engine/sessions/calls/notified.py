"""A client's calls about its notifications: which there are, and that it has read some."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fanline.engine.notifications.received import ReceivedNotifications
from fanline.engine.sessions.session import Session
from fanline.protocol.channels import namespace_of
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.dialects.plain.notices import NOTIFICATION
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import explain

LIST, MARK = "notifications", "mark_read"
"""The verbs of calls on a user's inbox."""
_MAX_PAGE = 200
_Id = Annotated[str, Meta(min_length=1, max_length=128)]


class _Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=_MAX_PAGE)] = 50
    before: _Id | None = None
    unread: bool = False


class _Marking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: Annotated[list[_Id], Meta(max_length=1000)] | None = None


class NotificationCommands:
    """Of one worker's sessions. MessageError, BusError."""

    def __init__(self, received: ReceivedNotifications) -> None:
        self._received = received

    def knows(self, channel: str, verb: str | None) -> bool:
        """Whether this class answers a call. A client that may subscribe to the channel may make it."""
        return namespace_of(channel) == "user" and verb in (LIST, MARK)

    async def call(self, session: Session, command: Envelope, channel: str) -> Envelope:
        """The answer to a call on a user's inbox."""
        user = unescape_id(channel.partition(":")[2])
        if command.event == LIST:
            return Envelope(MessageType.OK, channel=channel, data=await self._list(user, command.value))
        unread = await self._mark(user, command.value)
        return Envelope(MessageType.OK, channel=channel, data={"unread": unread})

    async def list(self, session: Session, command: PlainCommand) -> Envelope:
        """What a plain client gets."""
        return Envelope(MessageType.OK, data=await self._list(_user(session), command.data))

    async def mark(self, session: Session, command: PlainCommand) -> Envelope:
        """A plain client has read some, or all."""
        return Envelope(MessageType.OK, data={"unread": await self._mark(_user(session), command.data)})

    async def message_read(self, session: Session, message: Envelope) -> None:
        """A plain client has read a message that it got, which may be a notification."""
        if message.event == NOTIFICATION and message.id is not None and session.identity.user is not None:
            await self._received.mark_read(session.identity.user, [message.id])

    async def _list(self, user: str, data: Any) -> dict[str, Any]:
        asked = _read(_Listing, data)
        page = await self._received.page(user, asked.limit, asked.before, unread_only=asked.unread)
        found = page.notifications
        last = found[-1]["id"] if page.more and found else None
        return {"notifications": found, "unread": page.unread, "next": last}

    async def _mark(self, user: str, data: Any) -> int:
        return await self._received.mark_read(user, _read(_Marking, data).ids)


def _user(session: Session) -> str:
    if session.identity.user is None:
        raise MessageError(ErrorCode.PERMISSION_DENIED, "only a user has notifications: say who you are")
    return session.identity.user


def _read(kind: type[Any], data: Any) -> Any:
    try:
        return msgspec.convert({} if data is None else data, kind)
    except msgspec.ValidationError as error:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"notifications: {explain(error)}") from None
