"""What only clients of the plain dialect say, and how it is performed."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from fanline.engine.sessions.calls.notified import NotificationCommands
from fanline.engine.sessions.commands.subscriptions import SubscriptionCommands
from fanline.engine.sessions.identity.identification import Identification
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.rooms import room_answer
from fanline.engine.sessions.talk.talk import Talk
from fanline.protocol.channels import namespace_of
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import MessageError
from fanline.protocol.messages.commands import command_channel


class SessionAnswers(Protocol):
    """What is done for all clients, as far as it is a part of what plain clients say."""

    async def join_route(self, session: Session) -> None: ...

    def answer(self, session: Session, command: Envelope | None, reply: Envelope) -> None: ...


Perform = Callable[[Session, PlainCommand], Awaitable[Envelope | None]]


class Said:
    """Performs what the sessions of one worker say. MessageError, BusError: the `err`."""

    def __init__(
        self,
        talk: Talk,
        answering: SessionAnswers,
        subscriptions: SubscriptionCommands,
        identification: Identification,
        notified: NotificationCommands,
    ) -> None:
        self._talk = talk
        self.sent = talk.sent
        self._answering = answering
        self._subscriptions = subscriptions
        self._identification = identification
        self._performs: dict[str, Perform] = {
            "connect": self._connect,
            "join_room": self._join_room,
            "leave_room": self._leave_room,
            "get_tasks": talk.board.list,
            "collaboration_start": self._collaborate,
            "collaboration_end": self._collaborate,
            "get_notifications": notified.list,
            "mark_read": notified.mark,
            **talk.says,
        }
        talk.receipts.on_read = notified.message_read

    async def perform(self, session: Session, command: PlainCommand) -> Envelope | None:
        """The answer; None if there is none, or it was sent already."""
        return await self._performs[command.event or ""](session, command)

    async def enter_sessions(self, session: Session) -> None:
        """Notify the others in a session that the route has joined that this client has joined it."""
        for channel in session.subscriptions or {}:
            if namespace_of(channel) == "session" == session.visit.rooms:
                session.on_left = self._talk.leave
                await self._talk.rooms.enter(session, channel)

    def part(self, session: Session) -> None:
        """The connection has ended."""
        self._talk.part(session)

    async def _connect(self, session: Session, command: PlainCommand) -> None:
        await self._identification.name(session, command)
        reply = Envelope(MessageType.OK, data={"connection": session.connection, "user": session.identity.user})
        self._answering.answer(session, command, reply)
        await self._answering.join_route(session)

    async def _join_room(self, session: Session, command: PlainCommand) -> None:
        channel = command_channel(command)

        def answer(_: Envelope) -> None:
            self._answering.answer(session, command, room_answer(session, channel))

        self._talk.rooms.check_room(session, channel)
        session.on_left = self._talk.leave
        await self._subscriptions.subscribe(session, command, answer)
        await self._talk.rooms.enter(session, channel, command.said.get("room_name"))

    async def _leave_room(self, session: Session, command: PlainCommand) -> Envelope:
        channel = command_channel(command)
        with suppress(MessageError):  # it was not there, which is what the client wants
            self._subscriptions.unsub(session, command)
        return room_answer(session, channel)

    async def _collaborate(self, session: Session, command: PlainCommand) -> Envelope:
        """The client works on a document from now on, or no longer; who else does."""
        channel, documents = command_channel(command), self._talk.documents
        session.on_left = self._talk.leave
        if command.event == "collaboration_start":
            await self._subscriptions.subscribe(session, command, lambda _: None)
            collaborators = await documents.enter(session, channel)
        else:
            collaborators = await documents.leave(session, channel)
            with suppress(MessageError):
                self._subscriptions.unsub(session, command)
        return Envelope(MessageType.OK, channel=channel, data={"collaborators": collaborators})
