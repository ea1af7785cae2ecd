"""What a client may say, and how each command is performed. To add one, write a method and put it into the table."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.identity import AccessError
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.removals import Removals
from fanline.engine.bus.interface import Bus, BusError
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.inbox import Acknowledgements, move_cursor
from fanline.engine.channels.join import Answer, Joining
from fanline.engine.channels.start import Live, start_of
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import OnFault
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions.attending import Attending, Begin
from fanline.engine.sessions.beside import Beside
from fanline.engine.sessions.calls import Calls
from fanline.engine.sessions.identification import Identification
from fanline.engine.sessions.own import OwnCommands, kind_of
from fanline.engine.sessions.publisher import ClientPublisher, new_message_id
from fanline.engine.sessions.refusals import close_reason, code_of, failure, refusal
from fanline.engine.sessions.route_joins import join_route
from fanline.engine.sessions.saying import publish_and_say, say_begun, say_ended
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.store import SessionStore
from fanline.engine.sessions.talk.said import Said
from fanline.engine.sessions.talk.talk import Talk
from fanline.protocol.auth.revocation import Removal
from fanline.protocol.auth.rights import Right, right_of_verb
from fanline.protocol.channels import is_pattern
from fanline.protocol.dialects.plain_commands import NEW_MESSAGE, TALK, PlainCommand
from fanline.protocol.envelope import Envelope, MessageType, check_names
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.hooks.events import ChannelSubscribed
from fanline.protocol.messages import AskHistory, Authenticate, Authenticated, command_channel, message_id_of, read
from fanline.protocol.websocket.ack_pings import acknowledged_offset

_SMALL = 256  # bytes of a message; smaller ones are bounded well enough by their number

Perform = Callable[["Commands", Session, Envelope], Awaitable[Envelope | None]]
"""The answer to a command; None if it has been answered, or is answered later. MessageError, BusError: the `err`."""


class Commands:
    """Performs the commands of all sessions of one worker."""

    def __init__(
        self,
        *,
        bus: Bus,
        identification: Identification,
        permissions: Permissions,
        removals: Removals,
        attending: Attending,
        audit: Audit,
        joining: Joining,
        paging: Paging,
        namespaces: Namespaces,
        publisher: ClientPublisher,
        calls: Calls,
        own: OwnCommands,
        beside: Beside,
        talk: Talk,
        store: SessionStore,
        acknowledgements: Acknowledgements,
        counters: Counters,
        hits: LimitHits,
        max_subscriptions: int,
        on_fault: OnFault,
    ) -> None:
        self._bus = bus
        self._identification = identification
        self._permissions = permissions
        self._removals = removals
        self._attending = attending
        self._audit = audit
        self._joining = joining
        self._paging = paging
        self._namespaces = namespaces
        self._publisher = publisher
        self._calls = calls
        self._own = own
        self._beside = beside
        self._said = Said(talk, self, identification)
        self._store = store
        self._acknowledgements = acknowledgements
        self._counters = counters
        self._hits = hits
        self._max_subscriptions = max_subscriptions
        self._on_fault = on_fault
        self._entering: dict[Session, trio.Event] = {}

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
            data.resumed = await self._resume(session, wanted.session, wanted.positions)
        self.answer(session, command, Envelope(MessageType.OK, data=data.fields()))
        if not was_known:
            await self.join_route(session)
        return None

    async def _resume(self, session: Session, wanted: str, positions: Mapping[str, tuple[int, str]]) -> bool:
        """Subscribe to what another connection had; each channel's answer and history come first. The session keeps its
        own id: the other connection, if its worker does not know yet that it is dead, may still store its session.
        """
        stored = await self._store.find(wanted)
        if stored is None or stored.user != session.identity.user:
            return False
        for channel in stored.channels:
            offset, epoch = positions.get(channel, (None, None))
            command = Envelope(MessageType.SUB, channel=channel, offset=offset, epoch=epoch)
            try:
                await self.subscribe(session, command, session.push)
            except (MessageError, BusError) as error:
                session.push(refusal(command, error))
        return True

    async def join_route(self, session: Session) -> None:
        """Subscribe a client that is known to what its route joins. The connection ends if that cannot be done."""
        try:
            await join_route(session, self.subscribe, self._namespaces)
            if session.encoding.dialect.is_plain:
                await self._said.enter_sessions(session)
        except (MessageError, BusError) as error:
            self.answer(session, None, refusal(None, error))
            session.close(close_reason(error))

    def meet(self, session: Session) -> None:
        """The connection has begun."""
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

        await self.subscribe(session, command, answer)

    async def subscribe(self, session: Session, command: Envelope, answer: Answer) -> None:
        """Subscribe as a `sub` says. MessageError, BusError."""
        channel, mark = command_channel(command, or_pattern=True), self._removals.mark()
        await self._permissions.check(session.identity, Right.SUB, channel)
        await self.enter(session, command, channel, answer)
        removal = self._removals.since(mark, session.identity.user, channel)
        if removal is not None:  # it came between the check and the answer, and found no subscription
            end_removed(session, removal, channel)

    async def enter(self, session: Session, command: Envelope, channel: str, answer: Answer) -> None:
        """Subscribe a session that may do so; one `sub` of a session after the other, also if an operator sends one.
        MessageError, BusError.
        """
        while (busy := self._entering.get(session)) is not None:
            await busy.wait()
        self._entering[session] = trio.Event()
        try:
            async with self._attending.beginning(session, command, channel) as begin:
                await self._join(session, command, channel, begin, answer)
        finally:
            self._entering.pop(session).set()

    async def _join(self, session: Session, command: Envelope, channel: str, begin: Begin, answer: Answer) -> None:
        start = start_of(command)
        if is_pattern(channel) and not isinstance(start, Live):
            raise MessageError(ErrorCode.BAD_MESSAGE, f"{channel} has no start position: a pattern is live")
        subscriptions = session.subscriptions or {}
        known = subscriptions.get(channel)
        if known is not None and isinstance(start, Live) and channel not in (session.unasked or ()):
            begin(known)
            answer(Envelope(MessageType.OK, channel=channel))
            return
        if known is None and len(subscriptions) >= self._max_subscriptions:
            self._hits.hit(Limit.SUBSCRIPTIONS)
            limit = f"a connection may subscribe to {self._max_subscriptions} channels at most"
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, limit)
        subscription = known or self._attending.subscription(session, channel)

        def admit(reply: Envelope) -> None:
            # In one step with the answer: a session that is cut off during its history is taken up with this channel.
            subscriptions[channel] = subscription
            session.subscriptions = subscriptions
            if session.unasked is not None:
                session.unasked.discard(channel)
            self._audit.record(AuditEvent.SUBSCRIBED, session.identity, channel=channel)
            session.events.say(ChannelSubscribed, session, channel=channel)
            session.store()
            begin(subscription)
            answer(reply)

        await self._joining.join(subscription, start, admit)

    async def unsub(self, session: Session, command: Envelope) -> Envelope:
        channel = command_channel(command, or_pattern=True)
        if not session.unsubscribe(channel):
            raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to {channel}")
        return Envelope(MessageType.OK, channel=channel)

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
        """A page of what is stored of a channel, whether the session is subscribed to it or not."""
        channel = command_channel(command)
        await self._permissions.check(session.identity, Right.HISTORY, channel)
        if not self._namespaces.of(channel).durable:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} has no history: its namespace is not durable")
        answer = await self._paging.page(channel, read(AskHistory, command), command.epoch)
        await self._joining.wait_read(session.outbox)
        return answer

    async def ack(self, session: Session, command: Envelope) -> Envelope:
        """Move an inbox's cursor to an offset (`o`), which may name its epoch (`ep`), or to the message whose id is the
        data.
        """
        session.acknowledges = True
        inbox = _inbox_of(session, command)
        message_id = message_id_of(command)
        offset = command.offset
        if offset is None and message_id is not None:
            offset = inbox.log.offset_of(message_id)
        if offset is None or offset > inbox.last or not inbox.epoch.covers(command.epoch, offset):
            named = command.value if command.offset is None else command.offset
            raise MessageError(ErrorCode.UNKNOWN_MESSAGE, f"{inbox.name} has no message {named!r} to acknowledge")
        await move_cursor(self._bus, inbox.name, offset, inbox.epoch)
        return Envelope(MessageType.OK, channel=inbox.name, offset=offset)

    def take_pong(self, session: Session, payload: bytes) -> None:
        """The client has taken an inbox up to what the ping behind a message has named."""
        if session.acknowledges:
            return
        for each in (session.subscriptions or {}).values():
            inbox = each.channel.durable if each.channel.namespace.inbox else None
            offset = None if inbox is None else acknowledged_offset(payload, inbox.name)
            if inbox is not None and offset is not None and offset <= inbox.last:
                self._acknowledgements.note(inbox.name, offset, inbox.epoch)

    # --- producers -----------------------------------------------------------------------------------------------

    async def call(self, session: Session, command: Envelope) -> None:
        """Ask a task's producer, or the application; the answer comes when it comes, and the next command need not wait
        for it.
        """
        channel = command_channel(command)
        await self._permissions.check(session.identity, right_of_verb(command.event or ""), channel)
        perform = self._calls.perform if self._calls.is_task(channel) else self._own.call

        def answer(reply: Envelope | MessageError | BusError) -> None:
            code = None if isinstance(reply, Envelope) else code_of(reply)
            self._audit.record(AuditEvent.CALLED, session.identity, channel=channel, verb=command.event, code=code)
            self.answer(session, command, reply if isinstance(reply, Envelope) else refusal(command, reply))

        self._beside.begin(session, command, partial(perform, session, command, channel), answer)

    async def own(self, session: Session, command: Envelope) -> None:
        """A message of a type that only the application may know."""
        self._own.check(command)

        def answer(reply: Envelope | MessageError | BusError) -> None:
            code = None if isinstance(reply, Envelope) else code_of(reply)
            self._audit.record(AuditEvent.CALLED, session.identity, verb=kind_of(command), code=code)
            self.answer(session, command, reply if isinstance(reply, Envelope) else refusal(command, reply))

        self._beside.begin(session, command, partial(self._own.message, session, command), answer)


_AUDITED = frozenset((ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED))
_CHANGES_SESSION = frozenset(
    (
        *(MessageType.AUTH, MessageType.SUB, MessageType.UNSUB),
        *("connect", "join_room", "leave_room", "collaboration_start", "collaboration_end"),
    )
)
_FOR_STRANGERS = frozenset((MessageType.AUTH, MessageType.PING))
"""What a client may say before it is known."""

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


def end_removed(session: Session, removal: Removal, channel: str) -> None:
    """End a subscription, to `channel`, of a user who has been removed from it."""
    reason = removal.reason or f"you have been removed from {removal.channel}"
    session.end_subscription(channel, ErrorCode.PERMISSION_DENIED, reason)


def _inbox_of(session: Session, command: Envelope) -> DurableChannel:
    """The inbox that an `ack` is about; without a channel it is the one this session is subscribed to."""
    subscriptions = session.subscriptions or {}
    inboxes = {name: each.channel.durable for name, each in subscriptions.items() if each.channel.namespace.inbox}
    channel = next(iter(inboxes)) if command.channel is None and len(inboxes) == 1 else command_channel(command)
    inbox = inboxes.get(channel)
    if inbox is None:
        raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to an inbox {channel}")
    return inbox
