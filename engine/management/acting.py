"""What an operator can do to the connections of a worker."""

import secrets
from functools import partial
from typing import Any

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Member
from fanline.engine.connections.connection import Connection
from fanline.engine.connections.registry import Registry
from fanline.engine.sessions.calls.calls import Calls
from fanline.engine.sessions.commands.commands import Commands
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.management.answers import PingResult
from fanline.protocol.management.questions import (
    CallQuestion,
    DisconnectQuestion,
    PingQuestion,
    SendQuestion,
    SubscribeQuestion,
    UnsubscribeQuestion,
)
from fanline.protocol.messages.commands import Subscribe
from fanline.protocol.websocket.frames import Opcode, encode_frame

PONG_SECONDS = 1.5
_LOOK_SECONDS = 0.02  # between two checks for pongs, which record their own arrival
_PING = encode_frame(Opcode.PING, b"")


class Acting:
    """Of one worker, `own`."""

    def __init__(self, registry: Registry, own: Member, commands: Commands, calls: Calls) -> None:
        self._registry = registry
        self._own = own
        self._commands = commands
        self._calls = calls

    async def send(self, question: SendQuestion) -> bool:
        connection = self._open(question.connection)
        if connection is None:
            return False
        message_id = secrets.token_urlsafe(12)
        message = Envelope(MessageType.PUB, id=message_id, event=question.event, data=question.data, time=unix_ms())
        connection.session.push(message)
        return True

    async def ping(self, question: PingQuestion) -> list[PingResult]:
        begun = trio.current_time()
        pinged = self._of_user(question.user)
        for connection in pinged:
            connection.outbox.push(_PING)
        with trio.move_on_after(PONG_SECONDS):
            while any(  # noqa: ASYNC110  # as said below
                each.session.ponged < begun and each.outbox.life.is_open for each in pinged
            ):
                await trio.sleep(_LOOK_SECONDS)  # an event for each connection would be in the way of all others
        return [
            PingResult(
                connection_id=each.session.connection,
                worker=self._own.name,
                server=self._own.server,
                seconds=round(each.session.ponged - begun, 6) if each.session.ponged >= begun else None,
            )
            for each in pinged
        ]

    async def disconnect(self, question: DisconnectQuestion) -> int:
        closed = list[Connection]()
        if question.user is not None:
            closed = self._of_user(question.user)
        elif question.connection is not None and (one := self._open(question.connection)) is not None:
            closed = [one]
        for connection in closed:
            connection.close(CloseReason.TRY_LATER if question.reconnect else CloseReason.DISCONNECTED)
        return len(closed)

    async def subscribe(self, question: SubscribeQuestion) -> bool:
        """The client gets an answer as if it had asked. MessageError, BusError."""
        connection, channel = self._open(question.connection), check_channel(question.channel)
        if connection is None:
            return False
        session = connection.session
        if channel not in (session.subscriptions or {}):
            command = Envelope(MessageType.SUB, channel=channel, data=Subscribe().fields() or None)
            is_plain = session.encoding.dialect.is_plain
            answer = partial(self._commands.answer, session, command) if is_plain else session.push
            await self._commands.subscriptions.enter(session, command, channel, answer)
            if not connection.outbox.life.is_open:  # it has ended meanwhile, and may have left its channels already
                session.end()
        return True

    async def unsubscribe(self, question: UnsubscribeQuestion) -> bool | None:
        connection = self._open(question.connection)
        if connection is None:
            return None
        had = question.channel in (connection.session.subscriptions or {})
        text = "an operator has ended this subscription"
        connection.session.end_subscription(question.channel, ErrorCode.PERMISSION_DENIED, text)
        return had

    async def call(self, question: CallQuestion) -> Any:
        channel = check_channel(question.channel)
        command = Envelope(MessageType.CALL, channel=channel, event=question.verb, data=question.data)
        return await self._calls.perform_for(question.by, command, channel)

    def _open(self, connection_id: str) -> Connection | None:
        connection = self._registry.get(connection_id)
        return connection if connection is not None and connection.outbox.life.is_open else None

    def _of_user(self, user: str) -> list[Connection]:
        return [each for each in self._registry if each.session.identity.user == user and each.outbox.life.is_open]
