"""The receipt `read`: the sender of a message learns that another member of its channel has read it."""

from collections.abc import Awaitable, Callable
from typing import Any

from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import Announcer, user_fields
from fanline.protocol.channels import is_channel
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError

OnRead = Callable[[Session, Envelope], Awaitable[None]]
_OF_MESSAGE = ("client_message_id", "session_id", "room_id")


def status_fields(message: Envelope, status: str) -> dict[str, Any]:
    """What a receipt says of the message that it is about."""
    extra = message.extra or {}
    return {key: extra[key] for key in _OF_MESSAGE if key in extra} | {"status": status}


class Receipts:
    """Those that the sessions of one worker give."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self.on_read: OnRead | None = None
        """What else is done with it; for the session, the message."""

    async def message_read(self, session: Session, command: PlainCommand) -> None:
        """The client has read a message of a channel that it is subscribed to. MessageError(UNKNOWN_MESSAGE) for any
        other, so that no client learns or speaks of messages that it does not see. BusError.
        """
        message = _known(session, command.data)
        if message is None:
            raise MessageError(ErrorCode.UNKNOWN_MESSAGE, "Message not found")
        if self.on_read is not None:
            await self.on_read(session, message)
        if message.sender is None or message.sender == session.identity.user:
            return
        inbox = inbox_name(message.sender)
        if not is_channel(inbox):
            return
        data = status_fields(message, "read") | user_fields(session.identity) | {"message_id": message.id}
        await self._announcer.tell(session, [inbox], "message_status_update", data, message.id)


def _known(session: Session, message_id: str) -> Envelope | None:
    for subscription in (session.subscriptions or {}).values():
        durable = subscription.channel.durable
        found = None if durable is None else durable.log.find(message_id)
        if found is not None:
            return found
    return None
