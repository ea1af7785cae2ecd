"""What clients say that only the application knows: message types and verbs of its own, which its hooks answer."""

from typing import Any

from fanline.engine.hooks.questions import Questions
from fanline.engine.sessions.session import Session
from fanline.protocol.channels import namespace_of
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.hooks.questions import ClientCall, ClientMessage
from fanline.protocol.text import harmless


class OwnCommands:
    """Those of the sessions of one worker."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def check(self, command: Envelope) -> None:
        """MessageError(UNKNOWN_TYPE) if no handler can know such a message."""
        if not self._questions.enabled:
            raise _unknown(command)

    async def message(self, session: Session, command: Envelope) -> Envelope:
        """The answer to a message of the application's own. MessageError."""
        answer = await self._questions.ask(ClientMessage, session, kind_of(command), command.channel, command.data)
        if not answer.known:
            raise _unknown(command)
        return _reply(command.channel, answer.result)

    async def call(self, session: Session, command: Envelope, channel: str) -> Envelope:
        """The answer to a call on a channel that is no task. MessageError."""
        if self._questions.enabled:
            answer = await self._questions.ask(ClientCall, session, command.event or "", channel, command.data)
            if answer.known:
                return _reply(channel, answer.result)
        raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is no task (namespace {namespace_of(channel)})")


def kind_of(command: Envelope) -> str:
    """The type of a message that only the application may know."""
    return str(command.said["type"]) if isinstance(command, PlainCommand) else command.type


def _unknown(command: Envelope) -> MessageError:
    if isinstance(command, PlainCommand):
        return MessageError(ErrorCode.UNKNOWN_TYPE, f"Unknown message type: {harmless(kind_of(command))}")
    return MessageError(ErrorCode.UNKNOWN_TYPE, f"unknown message type {command.type!r}")


def _reply(channel: str | None, result: Any) -> Envelope:
    return Envelope(MessageType.OK, channel=channel, data=result)
