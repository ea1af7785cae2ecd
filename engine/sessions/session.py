"""The session: what one client may say, and what it is answered. A command in, at most one answer out, in order."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio
from msgspec import Raw

from fanline.engine.bus.interface import BusError, TooLargeError
from fanline.engine.channels.inbox import move_cursor
from fanline.engine.channels.join import Resumption, StartPosition, join_durable, resumption_of, start_of
from fanline.engine.channels.log import ChannelLog
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Publishers
from fanline.engine.sending.outbox import Outbox
from fanline.engine.sessions.calls import perform_call, steady_log
from fanline.engine.sessions.context import Context
from fanline.engine.sessions.identity import Action, Identity
from fanline.engine.sessions.store import NOTE_AGAIN
from fanline.protocol.channels import check_channel, namespace_of
from fanline.protocol.dialects import PLAIN
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType, encode_cbor, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.names import deduplication_id
from fanline.protocol.tasks.states import ENGINE_EVENTS

Answer = TypeVar("Answer", bound=Envelope | None)
_MAX_CALLS = 16  # of one connection under way: each may wait for a producer
_log = logging.getLogger("fanline.session")


class Session:
    """One client's identity, wire and subscriptions."""

    __slots__ = ("_calls", "_channels", "_context", "_noted", "_outbox", "encoding", "id", "identity")

    def __init__(self, context: Context, encoding: Encoding, identity: Identity, outbox: Outbox) -> None:
        self.id = secrets.token_urlsafe(12)
        self.encoding = encoding
        self.identity = identity
        self._context = context
        self._outbox = outbox
        self._calls = 0  # under way
        self._noted = 0.0  # Trio time of the last note
        self._channels: set[str] | None = None  # most connections of a large server are idle: no empty set for each

    def welcome(self) -> None:
        """Greet the client: its session id, the heartbeat in milliseconds, and the limits it must keep."""
        settings = self._context.settings
        data = {
            "session": self.id,
            "user": self.identity.user,
            "heartbeat": int(settings.heartbeat * 1000),
            "limits": {"message": settings.max_message_bytes, "subscriptions": settings.max_subscriptions},
        }
        envelope = Envelope(MessageType.WELCOME, time=unix_ms(), data=data)
        self._outbox.push(self.encoding.encode(envelope))

    async def handle(self, payload: bytes) -> None:
        """Perform the commands of one client message, each to its end before the next."""
        try:
            commands = self.encoding.dialect.decode(payload)
        except MessageError as error:
            self._context.counters.commands += 1
            self._answer(None, _refusal(error.code, str(error), error.request))
            return
        for command in commands:
            self._context.counters.commands += 1
            reply = await self._perform(command)
            if reply is not None:
                self._answer(command, reply)

    def note_again(self) -> None:
        """Called now and then: keep this session's note from expiring."""
        if self._channels and trio.current_time() - self._noted > NOTE_AGAIN:
            self._note()

    def _note(self) -> None:
        if self.encoding.dialect is not PLAIN:  # whose clients know no sessions
            self._noted = trio.current_time()
            self._context.session_store.put(self.id, self.identity.user, self._channels or ())

    def end(self) -> None:
        """Take all subscriptions back."""
        for channel in self._channels or ():
            self._release(channel)
        self._channels = None

    async def _perform(self, command: Envelope) -> Envelope | None:
        perform = _COMMANDS.get(command.type, Session.unknown)
        return await self._guarded(partial(perform, self), command)

    async def _guarded(self, perform: Callable[[Envelope], Awaitable[Answer]], command: Envelope) -> Answer | Envelope:
        """What a command is answered: what performing it gives, or the `err` that says why not."""
        try:
            return await perform(command)
        except MessageError as error:
            return _refusal(error.code, str(error), command.id, command.channel)
        except TooLargeError as error:
            return _refusal(ErrorCode.TOO_LARGE, str(error), command.id, command.channel)
        except BusError as error:
            return _refusal(ErrorCode.UNAVAILABLE, str(error), command.id, command.channel)

    def _answer(self, command: Envelope | None, reply: Envelope) -> None:
        if reply.type == MessageType.ERR:
            self._context.counters.errors += 1
        payload = self.encoding.dialect.encode_reply(command, reply)
        if payload is not None:
            self._outbox.push(self.encoding.frame(payload))

    # --- commands -----------------------------------------------------------------------------------------------

    async def auth(self, command: Envelope) -> Envelope:
        """In development mode everybody is welcome. The data may name a session to take up (channels/join.py)."""
        wanted = resumption_of(command)
        outcome = {} if wanted is None else {"resumed": await self._resume(wanted)}
        data = {"user": self.identity.user, "session": self.id, **outcome}  # the id is the resumed session's by now
        return Envelope(MessageType.OK, id=command.id, data=data)

    async def _resume(self, wanted: Resumption) -> bool:
        """Subscribe to what another connection of this session had; each channel's answer and history come first."""
        note = await self._context.session_store.find(wanted.session)
        if note is None or note.user != self.identity.user:
            return False
        self.id = wanted.session
        for channel in note.channels:
            reply = await self._perform(wanted.subscribe(channel))
            if reply is not None:
                self._outbox.push(self.encoding.encode(reply))
        return True

    async def sub(self, command: Envelope) -> Envelope | None:
        channel = _channel_of(command)
        wish = start_of(command)
        await self._check(Action.SUBSCRIBE, channel)
        if self._channels is None:
            self._channels = set()
        if channel not in self._channels:
            await self._join(channel)
        elif wish.offset is None:
            return Envelope(MessageType.OK, id=command.id, channel=channel)
        else:
            self._context.hub.deactivate(channel, self._outbox)  # it wants to go on from elsewhere
        log = self._context.hub.log(channel)
        self._note()
        if log is not None:
            await self._join_durable(log, wish, command)
            return None
        self._context.hub.activate(channel, self.encoding, self._outbox)
        # Pushed before anything else can run, so the answer comes ahead of the channel's first message.
        return Envelope(MessageType.OK, id=command.id, channel=channel)

    async def _join_durable(self, log: ChannelLog, wish: StartPosition, command: Envelope) -> None:
        try:
            await join_durable(self._context, log, wish, command, self.encoding, self._outbox)
        except (MessageError, BusError):
            assert self._channels is not None
            self._channels.discard(log.channel)
            self._release(log.channel)
            raise

    async def _join(self, channel: str) -> None:
        """Count the subscription and wait until the bus routes the channel here; takes it back if that fails."""
        assert self._channels is not None
        if len(self._channels) >= self._context.settings.max_subscriptions:
            limit = self._context.settings.max_subscriptions
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, f"a connection may subscribe to {limit} channels at most")
        bus, timeout = self._context.bus, self._context.settings.bus_timeout
        self._channels.add(channel)  # from here on `end` takes it back, whatever happens
        if self._context.hub.subscribe(channel):
            bus.join(channel)
        with trio.move_on_after(timeout) as scope:
            await bus.wait_joined(channel)
        if scope.cancelled_caught:
            self._channels.discard(channel)
            self._release(channel)
            raise BusError(f"the bus did not confirm the subscription within {timeout:g} seconds")

    async def unsub(self, command: Envelope) -> Envelope:
        channel = _channel_of(command)
        if not self._channels or channel not in self._channels:
            raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to {channel}")
        self._channels.discard(channel)
        self._release(channel)
        self._note()
        return Envelope(MessageType.OK, id=command.id, channel=channel)

    async def pub(self, command: Envelope) -> Envelope:
        channel = _channel_of(command)
        await self._check(Action.PUBLISH, channel)
        if command.event in ENGINE_EVENTS and self._context.namespaces.of(channel).tasks:
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"{command.event} is said by the engine; use `call`")
        message = Envelope(
            MessageType.PUB,
            id=command.id or secrets.token_urlsafe(12),
            event=command.event,
            data=command.data,
            sender=self.identity.user,
            time=unix_ms(),
            key=command.key,
            priority=command.priority,
            ttl=command.ttl,
        )
        # CBOR data may hold byte strings, which only CBOR carries as they are.
        encode = encode_json if command.data is None or isinstance(command.data, Raw) else encode_cbor
        answer = Envelope(MessageType.OK, id=command.id, channel=channel, data={"id": message.id})
        if self._context.namespaces.of(channel).durable:
            own_id = deduplication_id(channel, message.id or "", self.identity.user or "")
            answer.offset = await self._context.bus.store(channel, encode(message), own_id)
        else:
            await self._context.bus.publish(channel, encode(message))
        return answer

    async def ack(self, command: Envelope) -> Envelope:
        """Move an inbox's cursor to an offset (`o`), or to the message whose id is the data."""
        log = self._inbox_of(command)
        offset = command.offset
        if offset is None:
            offset = log.offset_of(str(command.value)) if isinstance(command.value, str) else None
        if offset is None or offset > log.last:
            named = command.value if command.offset is None else command.offset
            raise MessageError(ErrorCode.UNKNOWN_MESSAGE, f"{log.channel} has no message {named!r} to acknowledge")
        await move_cursor(self._context.bus, log.channel, offset)
        return Envelope(MessageType.OK, id=command.id, channel=log.channel, offset=offset)

    def _inbox_of(self, command: Envelope) -> ChannelLog:
        """The log of the inbox an `ack` is about; without a channel it is the one this session is subscribed to."""
        inboxes = [name for name in self._channels or () if self._context.namespaces.of(name).inbox]
        channel = inboxes[0] if command.channel is None and len(inboxes) == 1 else _channel_of(command)
        log = self._context.hub.log(channel) if channel in inboxes else None
        if log is None:
            raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to an inbox {channel}")
        return log

    async def call(self, command: Envelope) -> None:
        """Ask a task's producer; the answer comes when it comes, and the next command need not wait for it."""
        channel = _channel_of(command)
        if not self._context.namespaces.of(channel).tasks:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is no task (namespace {namespace_of(channel)})")
        await self._check(Action.CALL, channel)
        if self._calls >= _MAX_CALLS:
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, f"{_MAX_CALLS} calls of this connection wait for their answer")
        self._calls += 1
        self._context.nursery.start_soon(self._call, command, channel, name="call")

    async def _call(self, command: Envelope, channel: str) -> None:
        async def perform(command: Envelope) -> Envelope:
            async with steady_log(self._context, channel) as log:
                data = await perform_call(self._context, log, command, self.identity.user, self.id)
            return Envelope(MessageType.OK, id=command.id, channel=channel, data=data)

        try:
            self._answer(command, await self._guarded(perform, command))
        except Exception:  # noqa: BLE001  # the edge of one call: logged once, nobody else notices
            _log.exception("a call on %s failed", channel)
        finally:
            self._calls -= 1

    async def ping(self, command: Envelope) -> Envelope:
        return Envelope(MessageType.PONG, id=command.id, data=command.data, time=unix_ms())

    async def not_supported(self, command: Envelope) -> Envelope:
        raise MessageError(ErrorCode.NOT_SUPPORTED, f"this server does not offer `{command.type}`")

    async def unknown(self, command: Envelope) -> Envelope:
        raise MessageError(ErrorCode.UNKNOWN_TYPE, f"unknown message type {command.type!r}")

    async def _check(self, action: Action, channel: str) -> None:
        backend = self._context.namespaces.of(channel).publish is Publishers.BACKEND
        if action is Action.PUBLISH and backend:
            text = f"only the backend publishes to {channel} (namespace {namespace_of(channel)})"
            raise MessageError(ErrorCode.PERMISSION_DENIED, text)
        if not await self._context.access.may(self.identity, action, channel):
            message = f"you may not {action} to {channel} (namespace {namespace_of(channel)})"
            raise MessageError(ErrorCode.PERMISSION_DENIED, message)

    def _release(self, channel: str) -> None:
        if self._context.hub.unsubscribe(channel, self._outbox):
            self._context.bus.leave(channel)


_COMMANDS: dict[str, Callable[[Session, Envelope], Awaitable[Envelope | None]]] = {
    MessageType.AUTH: Session.auth,
    MessageType.SUB: Session.sub,
    MessageType.UNSUB: Session.unsub,
    MessageType.PUB: Session.pub,
    MessageType.PING: Session.ping,
    MessageType.ACK: Session.ack,
    MessageType.CALL: Session.call,
    MessageType.PRESENCE: Session.not_supported,
    MessageType.HISTORY: Session.not_supported,
}


def _channel_of(command: Envelope) -> str:
    if command.channel is None:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"`{command.type}` needs a channel (`c`)")
    return check_channel(command.channel)


def _refusal(code: ErrorCode, message: str, request: str | None, channel: str | None = None) -> Envelope:
    return Envelope(MessageType.ERR, id=request, channel=channel, data={"code": code, "message": message})
