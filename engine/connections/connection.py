"""One connection: a task, a socket, and a life whose cancel scope the task runs in.

Idle, a connection keeps no parser, no buffer and no second task. Every way to its end goes through `_part`, which sends
the close frame, and nothing that goes wrong here reaches another connection.
"""

import logging
import socket
from typing import NamedTuple

import trio

from fanline.engine.access.user_places import UserPlaces
from fanline.engine.connections.handshake import Opened
from fanline.engine.counters import Counters
from fanline.engine.hooks.events import Events
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.sending.life import Life, LifeState
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.identity.expiry import Expiry
from fanline.engine.sessions.rate import Account, Rate, SlowLane, Work
from fanline.engine.sessions.refusals import close_reason, refusal
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.transport import WOULD_BLOCK, can_gather, end_sending, has_buffered
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason, ErrorCode, FrameError, MessageError
from fanline.protocol.messages.notices import Limits, ReconnectData
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_frame

_TOO_FAST = "you send more than you may; what you send is read more slowly from now on"
_TURN_FRAMES = 16
_READ_SIZE = 4096  # most client messages are small commands; a larger one takes several reads
_log = logging.getLogger("fanline.connection")


class ConnectionShared(NamedTuple):
    """What all connections of a worker share, so that each one stays small."""

    settings: EngineSettings
    limits: Limits
    counters: Counters
    hits: LimitHits
    outboxes: OutboxShared
    commands: Commands
    store: SessionStore
    events: Events
    expiry: Expiry
    rate: Rate
    lane: SlowLane
    places: UserPlaces


class Connection:
    """From the end of the handshake to the end of the socket, which stays the caller's to close."""

    __slots__ = ("_account", "_reader", "_shared", "_socket", "outbox", "session")

    def __init__(self, sock: socket.socket, opened: Opened, shared: ConnectionShared) -> None:
        self._socket = sock
        self._shared = shared
        self._account = Account(trio.current_time())
        self._reader: FrameReader | None = None  # only while a message is incomplete
        self.outbox = Outbox(sock, Life(), shared.outboxes)
        identity = opened.admission.identity
        self.session = Session(
            shared.store,
            shared.events,
            opened.encoding,
            identity,
            self.outbox,
            opened.route,
            opened.visit,
            opened.origin,
        )
        self.session.place = opened.admission.place
        shared.places.hold(self.session.place, self.session)
        self.session.request = opened.admission.request
        self.session.credential = opened.admission.credential

    async def run(self, rest: bytes) -> None:
        """Serve the client until one side ends it; `rest` is what came with the handshake."""
        try:
            self.session.welcome(self._shared.settings.heartbeat, self._shared.limits)
            self._shared.expiry.watch(self.session)
            self.outbox.life.begin(self.session.route.idle)
            self._shared.commands.meet(self.session)
            with self.outbox.life.scope:
                if self.session.route.joins:
                    await self._shared.commands.join_route(self.session)
                if rest:
                    await self._feed(rest)
                await self._read()
        except Exception:  # noqa: BLE001  # the edge of one connection: logged once, nobody else notices
            _log.exception("a connection failed")  # without the id of its session, which is a secret
            self.outbox.finish(CloseReason.INTERNAL)
        finally:
            self._shared.commands.part(self.session)
            self._shared.places.give_back(self.session.place)
        await self._part()

    def refuse(self, error: MessageError) -> None:
        """Say why the client does not get in, before anything else is said."""
        self.session.push(refusal(None, error))
        self.outbox.finish(close_reason(error))

    @property
    def can_be_told(self) -> bool:
        """Whether its client knows `reconnect`."""
        return not self.session.encoding.dialect.is_plain

    def send_away(self, seconds: float) -> None:
        """The worker stops: tell the client to come back after this time, and close."""
        data = ReconnectData(delay=round(seconds * 1000), reason=CloseReason.RESTART.text)
        self.session.push(Envelope(MessageType.RECONNECT, data=data.fields()))
        self.close(CloseReason.RESTART)

    def close(self, reason: CloseReason) -> None:
        """End the connection from our side: a close frame, then up to `close_timeout` for the client to take it."""
        self.session.close(reason)

    async def _read(self) -> None:
        while self.outbox.life.is_open:
            if not has_buffered(self._socket):
                await trio.lowlevel.wait_readable(self._socket)
            data = self._receive()
            if data:
                self.outbox.life.extend(self.session.route.idle)
                await self._pace(await self._feed(data))
            del data  # not kept while waiting for the next

    def _receive(self) -> bytes:
        """The bytes received, b"" if there are none; the end of the stream ends the connection."""
        try:
            data = self._socket.recv(_READ_SIZE)
        except WOULD_BLOCK:
            return b""
        except OSError:
            data = b""
        if not data:
            self.outbox.life.lose()
        return data

    async def _pace(self, work: Work) -> None:
        """Charge what was read, and read on only when the client is no longer too fast. Each fragment counts as a
        message, since it costs as much, and what is inflated with the size that it then has.
        """
        pace = self._account.charge(self._shared.rate, work, trio.current_time())
        if pace.over:
            self._shared.hits.hit(Limit.FLOODING)
            self.outbox.finish(CloseReason.LIMITED)
        elif pace.pause:
            if pace.heavy:
                self._shared.hits.hit(Limit.ANSWERS)
            if pace.first is not None:
                self._shared.hits.hit(pace.first)
                self.session.push(refusal(None, MessageError(ErrorCode.LIMIT_EXCEEDED, _TOO_FAST)))
            await trio.sleep(pace.pause)
        if work.seconds and not pace.over:
            self.outbox.life.suspend()  # others may hold the lane for longer than a client may be silent
            await self._shared.lane.rest(work.seconds, held_back=pace.pause > 0)
            self.outbox.life.begin(self.session.route.idle)

    async def _feed(self, data: bytes) -> Work:
        """Take what has come; what that was, with bytes that are inflated."""
        limit = self._shared.settings.max_message_bytes
        seconds = 0.0
        reader = self._reader or FrameReader(limit, deflated=self.session.encoding.deflated)
        try:
            for message in reader.feed(data):
                seconds += await self._take(message)
                # Others get a turn after messages that were inflated or took many reads, and between many commands.
                if len(message.payload) > len(data) or reader.frames % _TURN_FRAMES == 0:
                    await trio.lowlevel.checkpoint()
        except FrameError as error:
            self._refuse(error)
        self._reader = None if reader.idle else reader
        answered, self.outbox.answered = self.outbox.answered, 0
        return Work(reader.frames, len(data) + reader.inflated, seconds, answered)

    async def _take(self, message: WebSocketMessage) -> float:
        """Take one message; the CPU seconds that it took to decode it."""
        if message.opcode is Opcode.CLOSE:
            self._take_goodbye(message.payload)
        elif not self.outbox.life.is_open:
            pass
        elif message.opcode is Opcode.PONG:
            self.session.ponged = trio.current_time()
            if message.payload:
                self._shared.commands.inboxes.take_pong(self.session, message.payload)
        elif message.opcode is Opcode.PING:
            self.outbox.push(encode_frame(Opcode.PONG, message.payload))
        elif message.opcode is self.session.encoding.dialect.opcode:
            return await self._shared.commands.handle(self.session, message.payload)
        else:
            name = self.session.encoding.dialect.name
            raise FrameError(CloseReason.UNSUPPORTED_DATA, f"dialect {name} takes no such message")
        return 0.0

    def _take_goodbye(self, payload: bytes) -> None:
        try:
            decode_close(payload)
        except FrameError as error:  # a code that may not be sent
            self._refuse(error)
        self.outbox.answer_close(encode_frame(Opcode.CLOSE, payload[:2]))

    def _refuse(self, error: FrameError) -> None:
        if self.outbox.life.is_open:
            self._shared.counters.broken_closed += 1
            if error.reason is CloseReason.TOO_BIG:
                self._shared.hits.hit(Limit.MESSAGE_SIZE)
            self.outbox.finish(error.reason, str(error))

    async def _part(self) -> None:
        """Say why, and give the client `close_timeout` to read it and to say goodbye (RFC 6455 section 7.1.1)."""
        life = self.outbox.life
        if life.is_open:  # the scope's deadline passed
            self._shared.hits.hit(Limit.SILENCE)
            self.outbox.finish(CloseReason.SILENT)
        with trio.move_on_after(self._shared.settings.close_timeout):
            if life.state is LifeState.LOST:
                return
            await self.outbox.wait_drained()
            if can_gather(self._socket):  # TLS could not be read any more after it
                end_sending(self._socket)
            while life.state is LifeState.CLOSING:
                if not has_buffered(self._socket):
                    await trio.lowlevel.wait_readable(self._socket)
                await self._feed(self._receive())
