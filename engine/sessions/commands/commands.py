"""What a client may send, and how each command is performed. To add one, write a method and put it into the table."""

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.identity import AccessError
from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.errors import BusError
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.joining.join import Joining
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import OnFault
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions.attending import Attending
from fanline.engine.sessions.calls.managing import Managing
from fanline.engine.sessions.calls.notified import NotificationCommands
from fanline.engine.sessions.commands.calls import CallCommands
from fanline.engine.sessions.commands.inboxes import InboxCommands
from fanline.engine.sessions.commands.subscriptions import SubscriptionCommands
from fanline.engine.sessions.identity.identification import Identification
from fanline.engine.sessions.publisher import ClientPublisher, new_message_id
from fanline.engine.sessions.refusals import close_reason, failure, refusal
from fanline.engine.sessions.route_joins import join_route
from fanline.engine.sessions.saying import publish_and_say, say_begun, say_ended
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.said import Said
from fanline.engine.sessions.talk.talk import Talk
from fanline.protocol.auth.rights import Right
from fanline.protocol.dialects.plain.commands import NEW_MESSAGE, TALK, PlainCommand
from fanline.protocol.envelope import Envelope, MessageType, check_names
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import Authenticated
from fanline.protocol.messages.commands import AskHistory, Authenticate, command_channel
from fanline.protocol.messages.control_data import read

_SMALL = 256  # bytes of a message; smaller ones are bounded well enough by their number

Perform = Callable[["Commands", Session, Envelope], Awaitable[Envelope | None]]
"""The answer to a command; None if it has been answered, or is answered later. MessageError, BusError: the `err`."""


class Commands:
    """Performs the commands of all sessions of one worker."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionCommands,
        inboxes: InboxCommands,
        identification: Identification,
        permissions: Permissions,
        attending: Attending,
        audit: Audit,
        joining: Joining,
        paging: Paging,
        namespaces: Namespaces,
        publisher: ClientPublisher,
        calls: CallCommands,
        notified: NotificationCommands,
        managing: Managing,
        talk: Talk,
        counters: Counters,
        on_fault: OnFault,
    ) -> None:
        self.subscriptions = subscriptions
        self.inboxes = inboxes
        self._identification = identification
        self._permissions = permissions
        self._attending = attending
        self._audit = audit
        self._joining = joining
        self._paging = paging
        self._namespaces = namespaces
        self._publisher = publisher
        self.calls = calls
        self._managing = managing
        self._said = Said(talk, self, subscriptions, identification, notified)
        self._counters = counters
        self._on_fault = on_fault

    async def handle(self, session: Session, payload: bytes) -> float:
        """Perform the commands of one client message, each to its end before the next, and answer them. Returns the CPU
        seconds that it took to decode a message that is not small, and to answer it with its own data.
        """
        is_small = len(payload) <= _SMALL
        begun = 0.0 if is_small else time.thread_time()
        try:
            commands = session.encoding.dialect.decode(payload, session.visit)
        except MessageError as error:
            self._counters.commands += 1
            self.answer(session, None, refusal(None, error))
            commands = []
        seconds = 0.0 if is_small else time.thread_time() - begun
        for command in commands:
            self._counters.commands += 1
            reply = await self._perform(session, command)
            if reply is not None:
                begun = 0.0 if is_small else time.thread_time()
                self.answer(session, command, reply)
                seconds += 0.0 if is_small else time.thread_time() - begun
        return seconds

    async def _perform(self, session: Session, command: Envelope) -> Envelope | None:
        """The edge of one command: a fault of ours stays with it unless it may have left the session half changed."""
        try:
            return await self._perform_or_refuse(session, command)
        except Exception:
            name = (command.event if command.type == TALK else None) or command.type
            if name in _CHANGES_SESSION:
                raise
            self._on_fault(command.channel or name, "a command failed")
            return refusal(command, failure())

    async def _perform_or_refuse(self, session: Session, command: Envelope) -> Envelope | None:
        perform = COMMANDS.get(command.type, Commands.own)
        try:
            check_names(command)
            if not session.identity.known and command.type not in _FOR_STRANGERS:
                raise AccessError("authenticate first: `auth` with a token")
            if command.type == TALK and isinstance(command, PlainCommand):
                return await self._said.perform(session, command)
            return await perform(self, session, command)
        except (MessageError, BusError) as error:
            if isinstance(error, MessageError) and error.code in _AUDITED:
                self._audit.record(AuditEvent.REFUSED, session.identity, channel=command.channel, code=error.code)
            return refusal(command, error)

    def answer(self, session: Session, command: Envelope | None, reply: Envelope) -> None:
        """Send the answer to a command; None: to one that could not be read."""
        if reply.type == MessageType.ERR:
            self._counters.errors += 1
        elif command is not None:
            reply.id = command.id
        dialect = session.encoding.dialect
        if dialect.is_plain and reply.time is None:
            reply.time = unix_ms()  # every message to a plain client has one
        payload = dialect.encode_reply(command, reply)
        if payload is not None:
            frame = session.encoding.frame(payload)
            session.outbox.push(frame)
            session.outbox.answered += len(frame)

    # --- the session ---------------------------------------------------------------------------------------------

    async def auth(self, session: Session, command: Envelope) -> Envelope | None:
        """Take a token, take up a session, or both. The connection of a client that is not known then ends."""
        wanted, was_known = read(Authenticate, command), session.identity.known
        try:
            if wanted.token is not None or not session.identity.known:
                await self._identification.authenticate(session, wanted.token)
        except AccessError as error:
            if session.identity.known:
                raise
            self.answer(session, command, refusal(command, error))
            session.close(close_reason(error))
            return None
        data = Authenticated(user=session.identity.user, session=session.id)
        if session.identity.expires < math.inf:
            data.expires = int(session.identity.expires * 1000)
        if wanted.session is not None:
            data.resumed = await self.subscriptions.resume(session, wanted.session, wanted.positions)
        self.answer(session, command, Envelope(MessageType.OK, data=data.fields()))
        if not was_known:
            await self.join_route(session)
        return None

    async def join_route(self, session: Session) -> None:
        """Subscribe a client that is known to what its route joins. The connection ends if that cannot be done."""
        try:
            await join_route(session, self.subscriptions.subscribe, self._namespaces)
            if session.encoding.dialect.is_plain:
                await self._said.enter_sessions(session)
        except (MessageError, BusError) as error:
            self.answer(session, None, refusal(None, error))
            session.close(close_reason(error))

    def meet(self, session: Session) -> None:
        """The connection has begun."""
        self._managing.meet(session)
        say_begun(session)

    def part(self, session: Session) -> None:
        """The connection has ended."""
        self._said.part(session)
        session.end()
        say_ended(session)

    async def ping(self, session: Session, command: Envelope) -> Envelope:
        return Envelope(MessageType.PONG, data=command.data, time=unix_ms())

    # --- channels ------------------------------------------------------------------------------------------------

    async def sub(self, session: Session, command: Envelope) -> None:
        """Subscribe to a channel, or go on from another position of one that is subscribed."""

        def answer(reply: Envelope) -> None:
            if command.id is None and not session.encoding.dialect.is_plain and reply.offset is not None:
                session.push(reply)  # not asked for by an id, but the client must know where its history begins
            else:
                self.answer(session, command, reply)

        await self.subscriptions.subscribe(session, command, answer)

    async def unsub(self, session: Session, command: Envelope) -> Envelope:
        return self.subscriptions.unsub(session, command)

    async def pub(self, session: Session, command: Envelope) -> Envelope | None:
        channel = command_channel(command)
        await self._permissions.check(session.identity, Right.PUB, channel)
        if command.excluded not in (None, session.connection):
            raise MessageError(ErrorCode.PERMISSION_DENIED, "n: a client may leave out its own connection only")
        if isinstance(command, PlainCommand):
            command.excluded = session.connection  # these clients speak to the others
            if command.event == NEW_MESSAGE:
                await self._say(session, command, channel)
                return None
        return await self._publish(session, command, channel)

    async def _publish(
        self, session: Session, command: Envelope, channel: str, message_id: str | None = None
    ) -> Envelope:
        answer = await publish_and_say(self._publisher, session, command, channel, message_id)
        self._audit.record(AuditEvent.PUBLISHED, session.identity, channel=channel)
        return answer

    async def _say(self, session: Session, command: PlainCommand, channel: str) -> None:
        """Publish a message whose sender learns when another member has it, but not before it is told that it is
        stored.
        """
        message_id = new_message_id()
        with self._said.sent.expecting(session, message_id, command):
            self.answer(session, command, await self._publish(session, command, channel, message_id))

    async def presence(self, session: Session, command: Envelope) -> Envelope:
        """Who is on a channel; without one, how many users the whole system has."""
        channel = None if command.channel is None else command_channel(command)
        return await self._attending.query(session.identity, channel)

    async def history(self, session: Session, command: Envelope) -> Envelope:
        """A page of a channel's stored messages, whether the session is subscribed to it or not."""
        channel = command_channel(command)
        await self._permissions.check(session.identity, Right.HISTORY, channel)
        if not self._namespaces.of(channel).durable:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} has no history: its namespace is not durable")
        answer = await self._paging.page(channel, read(AskHistory, command), command.epoch)
        await self._joining.wait_read(session.outbox)
        return answer

    async def ack(self, session: Session, command: Envelope) -> Envelope:
        return await self.inboxes.ack(session, command)

    # --- what others answer --------------------------------------------------------------------------------------

    async def call(self, session: Session, command: Envelope) -> None:
        await self.calls.call(session, command, partial(self.answer, session, command))

    async def own(self, session: Session, command: Envelope) -> None:
        self.calls.own(session, command, partial(self.answer, session, command))


_AUDITED = frozenset((ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED))
_CHANGES_SESSION = frozenset(
    (
        *(MessageType.AUTH, MessageType.SUB, MessageType.UNSUB),
        *("connect", "join_room", "leave_room", "collaboration_start", "collaboration_end"),
    )
)
_FOR_STRANGERS = frozenset((MessageType.AUTH, MessageType.PING))
"""What a client may send before it is identified."""

COMMANDS: dict[str, Perform] = {
    MessageType.AUTH: Commands.auth,
    MessageType.SUB: Commands.sub,
    MessageType.UNSUB: Commands.unsub,
    MessageType.PUB: Commands.pub,
    MessageType.PING: Commands.ping,
    MessageType.ACK: Commands.ack,
    MessageType.CALL: Commands.call,
    MessageType.PRESENCE: Commands.presence,
    MessageType.HISTORY: Commands.history,
}
