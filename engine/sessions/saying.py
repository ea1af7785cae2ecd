"""The application's events about sessions: that they begin and end, and what their clients publish."""

from typing import Any

from fanline.engine.sessions.publisher import ClientPublisher
from fanline.engine.sessions.session import Session
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import CloseReason
from fanline.protocol.hooks.events import (
    ConnectionClosed,
    ConnectionOpened,
    MessageReceived,
    MessageSent,
    TypingStatusChanged,
    UserConnected,
    UserDisconnected,
)
from fanline.protocol.messages.answers import PublishResult
from fanline.protocol.messages.control_data import read


def say_begun(session: Session) -> None:
    """The connection of a session has begun."""
    session.events.say(ConnectionOpened, session, dialect=session.encoding.dialect.name)
    if session.identity.user is not None:
        session.events.say(UserConnected, session)


def say_ended(session: Session) -> None:
    """It has ended; one without a reason has been silent for too long."""
    if session.identity.user is not None:
        session.events.say(UserDisconnected, session)
    reason = session.outbox.life.reason or CloseReason.SILENT
    session.events.say(ConnectionClosed, session, code=reason.code, reason=reason.text)


async def publish_and_say(
    publisher: ClientPublisher, session: Session, command: Envelope, channel: str, message_id: str | None
) -> Envelope:
    """Publish a message, whose client may do so, and say it. As `publish`."""
    event = command.event
    if event != "typing":
        session.events.say(MessageReceived, session, channel=channel, event=event, data=command.data)
    answer = await publisher.publish(command, channel, session.identity, message_id)
    if event == "typing":
        if session.events.wants(TypingStatusChanged):
            session.events.say(TypingStatusChanged, session, channel=channel, is_typing=_is_typing(command.value))
    elif session.events.wants(MessageSent):
        result = read(PublishResult, answer)
        where = {"message_id": result.id, "offset": answer.offset}
        session.events.say(MessageSent, session, channel=channel, event=event, **where)
    return answer


def _is_typing(data: Any) -> bool:
    return bool(data.get("is_typing", True)) if isinstance(data, dict) else True
