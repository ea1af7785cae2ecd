"""The client: one connection, reopened whenever it is lost, for any number of subscriptions and publishers."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload
from urllib.parse import urlsplit
from uuid import uuid4

import trio

from fanline.backoff import Backoff
from fanline.client.connection import ServerConnection, V1Dialect, open_connection
from fanline.client.control import read_control, server_error
from fanline.client.message import Gap, Message, PastMessages, Position, Published, from_envelope
from fanline.client.presence_view import PresenceView, PresenceViews
from fanline.client.subscription import Subscription
from fanline.client.subscription_driver import SubscriptionDriver
from fanline.client.subscriptions.start import StartPosition
from fanline.client.task_view import TaskView
from fanline.client.token_source import Token, TokenSource
from fanline.errors import ConnectionLost, ConnectionRefused
from fanline.groups import only_error
from fanline.plain import plain
from fanline.protocol.channels import is_pattern
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages import (
    MAX_LINES,
    AskHistory,
    Authenticate,
    HistoryAnswer,
    PresenceData,
    PublishResult,
    ReconnectData,
    Subscribe,
)

Codec = Literal["json", "cbor"]
StoredPositions = Mapping[str, Position | Sequence[Any]]
"""What `Subscription.positions` returned, or what JSON made of it."""
_DIALECTS: dict[str, V1Dialect] = {"json": JSON, "cbor": CBOR}
_AUTH_ID = "~auth"
_log = logging.getLogger("fanline")
_PING_ID = "~ping"  # no id that a program would give to a message
_RETRY_SECONDS = 100.0  # safely within the two minutes in which the server recognises a de-duplication id


class Client:
    """A Fanline client for Trio. Enter it once: `async with fanline.Client("ws://127.0.0.1:8080/ws") as client:`.

    Entering connects, and raises ConnectionRefused or ConnectionLost if that fails. A connection that is lost later is
    reopened, with full-jitter back-off of at most 15 seconds, and everything is subscribed again before any other
    command is sent: durable channels from where they were, so that nothing is missed or repeated; what an ephemeral
    channel had in between is missed. A refusal that would only be repeated (a close code or HTTP status that says so)
    ends the client: every call and every subscription then raises that error with `final` set. Timeouts are the
    caller's: `with trio.fail_after(5): await client.publish(...)`.

    `codec` is "json" or "cbor": the same messages in text or binary form; byte strings survive only in cbor.
    `notice` is called with a sentence for people whenever an established connection is lost, and when it is back.
    `token` is what the server wants to see, or a function, plain or async, that returns it: it is called for each
    connection, and whenever the server says that the token ends soon, so that the connection goes on with a new one.
    What it raises is raised by the client if it has no connection; else it is a warning of the logger "fanline".
    """

    def __init__(
        self,
        url: str,
        *,
        codec: Codec = "json",
        notice: Callable[[str], None] = lambda sentence: None,
        token: Token = None,
    ) -> None:
        if codec not in _DIALECTS:
            raise ValueError(f"codec is json or cbor, not {codec!r}")
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a WebSocket URL: {url!r} (expected ws://host:port/ws or wss://...)")
        self.url = url
        self._tokens = TokenSource(token)
        self._notice = notice
        self._dialect = _DIALECTS[codec]
        self._backoff = Backoff()
        self._connection: ServerConnection | None = None  # only while everything is subscribed on it
        self._changed = trio.Event()  # replaced whenever _connection or _error changes
        self._error: ConnectionLost | ConnectionRefused | None = None
        self._connected_once = False
        self._away = False  # and reported so
        self._return_in: float | None = None  # seconds, if the server has said so
        self._driver = SubscriptionDriver()
        self._presence = PresenceViews(self._driver, self._connected)
        self._reading: trio.CancelScope | None = None  # while a connection is open
        self._life = self._live()

    async def __aenter__(self) -> Self:
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._life.__aexit__(kind, error, traceback)

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[False] = False,
        buffer: int = 1024,
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[True],
        buffer: int = 1024,
    ) -> Subscription[Message | Gap]: ...

    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: bool = False,
        buffer: int = 1024,
    ) -> Subscription[Any]:
        """A subscription to one or more channels: `async with client.subscribe("task:42") as messages:`.

        By default it gets what is published from now on. A durable channel can begin earlier: with its newest `last`
        messages, with everything that is stored (`start`), or right after its position in `positions`, which is what
        `Subscription.positions` once returned; channels that are not in there begin as the other arguments say. An
        ephemeral channel has no history, and begins now whatever the arguments say.

        "project:*" stands for all channels of a namespace. It begins now, and is not made up for: what passes while the
        client is away is missed without a report, and where the server may have missed something there is a Gap.

        `gaps=True`: besides Messages, the iterator yields a Gap wherever something is missing. `buffer` is in messages.
        See Subscription for what entering, iterating and leaving do.
        """
        if not channels or buffer < 1:
            raise ValueError("subscribe to at least one channel, with room for at least one message")
        if start and last is not None:
            raise ValueError("give last or start, not both")
        history = Subscribe(last=last, start=start) if start or last is not None else None
        starts = {each: StartPosition(history=None if is_pattern(each) else history) for each in channels}
        stored = {channel: StartPosition(Position(*place)) for channel, place in (positions or {}).items()}
        starts |= {channel: stored[channel] for channel in channels if channel in stored}
        return Subscription(self._driver, starts, buffer, gaps=gaps)

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        x: Mapping[str, Any] | None = None,
        to_others: bool = False,
        deduplication_id: str | None = None,
    ) -> Published:
        """Publish `data` and wait for the answer: on a durable channel that it is stored, else that the bus has it.

        While disconnected it waits for the connection. If a connection ends before the answer, the outcome depends on
        the channel. A durable channel takes the same de-duplication id only once, so the message is sent again until
        there is an answer. An ephemeral channel would deliver it twice: ConnectionLost is raised, and it may have been
        done. The same is raised while this client has not had an answer from any channel of the namespace, and if the
        reconnect took so long (100 seconds) that the server may have forgotten the de-duplication id.

        Raises ServerError if the server refuses or cannot store it, TypeError or ValueError for data that JSON and CBOR
        cannot hold. Give a `deduplication_id` (16 to 128 printable characters, such as a UUID) to publish the message
        again yourself: within two minutes, a durable channel stores it only once, and the result says `duplicate`.

        `x`: extra attributes, at most 32 with lower-case keys, together at most 4 KiB. `to_others`: this client does
        not get the message itself, whatever it is subscribed to.
        """
        command = Envelope(
            MessageType.PUB,
            channel=channel,
            id=uuid4().hex,
            event=event,
            data=plain(data),
            extra=None if x is None else plain(x),
            deduplication_id=uuid4().hex if deduplication_id is None else deduplication_id,
        )
        connection = await self._connected()
        deadline = trio.current_time() + _RETRY_SECONDS
        while True:
            command.excluded = connection.id if to_others else None
            try:
                reply = await self._request(connection, command)
            except ConnectionLost as error:
                if not self._driver.machine.is_durable(channel):
                    raise
                connection = await self._connected()
                if trio.current_time() > deadline:
                    raise error from None
            else:
                self._driver.machine.learn(channel, reply)
                result = read_control(PublishResult, reply)
                return Published(result.id, reply.offset, result.duplicate)

    async def history(
        self, channel: str, *, limit: int = 100, before: Position | None = None, after: Position | None = None
    ) -> PastMessages:
        """The newest `limit` (1 to 500) messages that are stored of a durable channel, subscribed to or not; those
        before a position, or the oldest after one. Fewer if they are large.

        Page by page: `before=page.next`, or `after=page.next`, until that is None. Raises ServerError if the server
        refuses or the position is of another epoch, and ConnectionLost if the connection ends before the answer.
        """
        place = before or after
        asked = AskHistory(limit=limit, before=before and before.offset, after=after and after.offset)
        command = Envelope(
            MessageType.HISTORY, channel=channel, id=uuid4().hex, epoch=place and place.epoch, data=asked.fields()
        )
        reply = await self._request(await self._connected(), command)
        page = read_control(HistoryAnswer, reply)
        messages = [from_envelope(each, reply.epoch) for each in page.messages if each.type == MessageType.PUB]
        more = page.more and reply.offset is not None
        return PastMessages(messages, Position(reply.offset or 0, reply.epoch) if more else None)

    async def ack(self, message: Message) -> None:
        """Acknowledge an inbox (`user:NAME`) up to this message: whoever subscribes to it without a position, on any
        device of the user, begins behind it.

        Raises ServerError if it is no message of an inbox to which this client is subscribed, and ConnectionLost if
        the connection ends before the answer: acknowledge it, or a later one, again.
        """
        command = Envelope(
            MessageType.ACK, channel=message.channel, id=uuid4().hex, offset=message.offset, epoch=message.epoch
        )
        await self._request(await self._connected(), command)

    def task(
        self,
        id: str,  # noqa: A002  # the word of the protocol
        *,
        lines: int = 200,
        buffer: int = 1024,
        follow: bool = False,
        by: str | None = None,
    ) -> TaskView:
        """The task `id`, to watch and to control: `async with client.task("build-42") as task:`. See TaskView.

        It begins with the newest `lines` (0 to 1,000) of the log, and keeps as many. `buffer` is in messages, as for
        `subscribe`. `follow=True`: the iterator does not end with the task, but waits for another attempt. `by`: the
        name under which others see you cancel and answer (at most 64 characters), if the server knows no users.
        """
        if not 0 <= lines <= MAX_LINES or buffer < 1:
            raise ValueError(f"0 to {MAX_LINES} lines, with room for at least one message")
        starts = {f"task:{id}": StartPosition(history=Subscribe(snapshot=True, lines=lines))}
        messages: Subscription[Message | Gap] = Subscription(self._driver, starts, buffer, gaps=True)
        return TaskView(messages, partial(self.call, f"task:{id}"), lines, follow=follow, by=by)

    async def presence(self, channel: str | None = None) -> PresenceData:
        """Who is on a channel: `users`, or None if there are too many to be named; `count`; `connections`. Without a
        channel, how many users the whole system has.

        Raises ServerError if the server refuses or the channel has no presence, and ConnectionLost if the connection
        ends before the answer.
        """
        command = Envelope(MessageType.PRESENCE, channel=channel, id=uuid4().hex)
        return read_control(PresenceData, await self._request(await self._connected(), command))

    def watch_presence(self, channel: str, *, buffer: int = 1024) -> PresenceView:
        """Who is on a channel, and who comes and goes: `async with client.watch_presence("room:lobby") as room:`. See
        PresenceView. `buffer` is in notices, as it is in messages for `subscribe`.
        """
        return PresenceView(self._presence, channel, buffer)

    async def call(self, channel: str, verb: str, data: Any = None) -> Any:
        """Send a verb to whatever runs a channel, such as the producer of a task; returns the data of its answer.

        Raises ServerError if it is refused or nothing runs there, and ConnectionLost if the connection ends before the
        answer: then it may have been done, and it is not sent again. TypeError and ValueError as for `publish`.
        """
        command = Envelope(MessageType.CALL, channel=channel, id=uuid4().hex, event=verb, data=plain(data))
        return (await self._request(await self._connected(), command)).value

    async def ping(self) -> float:
        """Seconds of one round trip to the server. While disconnected it waits for the connection."""
        connection = await self._connected()
        start = trio.current_time()
        await self._request(connection, Envelope(MessageType.PING, id=_PING_ID))
        return trio.current_time() - start

    # --- commands -----------------------------------------------------------------------------------------------

    async def _connected(self) -> ServerConnection:
        """The open connection; waits for it. Raises what ended the client."""
        while self._connection is None:
            if self._error is not None:
                raise copy(self._error)
            await self._changed.wait()
        return self._connection

    async def _request(self, connection: ServerConnection, command: Envelope) -> Envelope:
        self._driver.read_on()  # the answer comes after whatever the reader has stopped at
        return await connection.request(command)

    # --- the connection -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        """The client's background tasks around the caller's block; what the block raises leaves it unchanged."""
        alone: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stay_connected, nursery)
                try:
                    await self._connected()
                    yield
                finally:
                    self._give_up(ConnectionLost("the client is closed"))
                # An open connection ends with a good-bye, which waits a little for the server's.
                (self._reading or nursery.cancel_scope).cancel()
        except BaseExceptionGroup as group:
            alone = only_error(group)
            if alone is None:
                raise
        if alone is not None:
            raise alone

    async def _stay_connected(self, nursery: trio.Nursery) -> None:
        while True:
            begun = trio.current_time()
            try:
                async with open_connection(self.url, self._dialect, await self._tokens.next()) as connection:
                    await self._use(connection, nursery)
            except (ConnectionLost, ConnectionRefused) as error:
                if not self._connected_once or (error.final and not self._tokens.may_help(error)):
                    self._give_up(error)
                elif self._error is None and not self._away:
                    self._away = True
                    self._notice(f"{error}; coming back")
            if self._error is not None:
                return
            if trio.current_time() - begun > self._backoff.cap:
                self._backoff.reset()
            delay, self._return_in = self._return_in, None
            await trio.sleep(self._backoff.next_delay() if delay is None else min(delay, self._backoff.cap))

    async def _use(self, connection: ServerConnection, nursery: trio.Nursery) -> None:
        """Read one connection until it is lost, which is an exception, or the client leaves."""
        nursery.start_soon(connection.write)
        async with trio.open_nursery() as own:
            self._driver.connect(connection, own)
            own.start_soon(self._resume, connection)
            try:
                with trio.CancelScope() as self._reading:
                    await self._read(connection, own)
            finally:
                self._reading = None
                self._connection = None
                self._driver.disconnect()
                connection.end()
                own.cancel_scope.cancel()

    async def _renew(self, connection: ServerConnection) -> None:
        """The token ends soon: show another one, if there is one. A refusal is the server's to act upon; while there is
        no other token, the present one is still good for a while.
        """
        try:
            token = await self._tokens.next() if self._tokens.can_change else None
            if token is not None:
                connection.post(Envelope(MessageType.AUTH, id=_AUTH_ID, data=Authenticate(token=token).fields()))
        except Exception:  # noqa: BLE001  # whatever the caller's function raises
            _log.warning("there is no new token to show", exc_info=True)

    async def _read(self, connection: ServerConnection, nursery: trio.Nursery) -> None:
        while True:
            for envelope in await connection.receive():
                if envelope.type in (MessageType.PUB, MessageType.GAP):
                    self._driver.receive(envelope)
                elif envelope.type == MessageType.AUTH:
                    nursery.start_soon(self._renew, connection)
                elif envelope.type == MessageType.UNSUB:
                    self._driver.lose(envelope.channel or "", server_error(envelope))
                elif envelope.type == MessageType.RECONNECT:
                    self._return_in = read_control(ReconnectData, envelope).delay / 1000
                elif not (self._presence.take(envelope) or self._driver.answer(envelope)):
                    connection.settle(envelope)
            await self._driver.wait_room(connection)

    async def _resume(self, connection: ServerConnection) -> None:
        """Let the commands come once everything is subscribed again."""
        await self._driver.wait_resumed()
        if self._error is None and not connection.lost:  # it may have ended since the last answer
            self._connection = connection
            self._connected_once = True
            if self._away:
                self._away = False
                self._notice("connected again")
            self._announce_change()
            await self._presence.resume(connection)

    def _give_up(self, error: ConnectionLost | ConnectionRefused) -> None:
        """The client is over: wake and end everything that waits."""
        if self._error is not None:
            return
        error.final = True
        self._error = error
        self._connection = None
        self._driver.close(error)
        self._announce_change()

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
