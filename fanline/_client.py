"""The client: one connection that comes back by itself, shared by any number of subscriptions and publishers."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import trio

from fanline._backoff import Backoff
from fanline._errors import ConnectionLost, ConnectionRefused, ServerError
from fanline._groups import only_error
from fanline._link import Link, V1Dialect, open_link
from fanline._message import from_envelope
from fanline._subscription import Subscription
from protocol.dialects import CBOR, JSON
from protocol.envelope import Envelope, MessageType, check_value
from protocol.errors import MessageError

Codec = Literal["json", "cbor"]
_DIALECTS: dict[str, V1Dialect] = {"json": JSON, "cbor": CBOR}


class Client:
    """A Fanline client for Trio. Enter it once: `async with fanline.Client("ws://127.0.0.1:8080/ws") as client:`.

    Entering connects, and raises ConnectionRefused or ConnectionLost if that fails. A connection that is lost later is
    opened again, with full-jitter back-off of at most 15 seconds, and everything is subscribed again before any other
    command is sent; messages published in between are missed where the channel is not durable. A refusal that would
    only be repeated (a close or HTTP status that says so) ends the client: every call and every subscription then
    raises that error with `final` set. Timeouts are the caller's: `with trio.fail_after(5): await client.publish(...)`.

    `codec` is "json" or "cbor": the same messages in text or binary form; byte strings survive only in cbor.
    """

    def __init__(self, url: str, *, codec: Codec = "json") -> None:
        if codec not in _DIALECTS:
            raise ValueError(f"codec is json or cbor, not {codec!r}")
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a WebSocket URL: {url!r} (expected ws://host:port/ws or wss://...)")
        self._url = url
        self._dialect = _DIALECTS[codec]
        self._backoff = Backoff()
        self._link: Link | None = None  # only while everything is subscribed on it
        self._moved = trio.Event()  # replaced at each change of _link or _error
        self._error: ConnectionLost | ConnectionRefused | None = None
        self._connected_once = False
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._full: set[Subscription] = set()
        self._reading: trio.CancelScope | None = None  # while a connection is open
        self._room = trio.lowlevel.ParkingLot()  # where the reader waits while a subscription is full
        self._numbers = itertools.count(1)
        self._life = self._live()

    async def __aenter__(self) -> Self:
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._life.__aexit__(kind, error, traceback)

    def subscribe(self, *channels: str, buffer: int = 1024) -> Subscription:
        """A subscription to one or more channels: `async with client.subscribe("task:42") as messages:`.

        `buffer` is in messages. See Subscription for what entering, iterating and leaving do.
        """
        if not channels or buffer < 1:
            raise ValueError("subscribe to at least one channel, with room for at least one message")
        return Subscription(self, tuple(dict.fromkeys(channels)), buffer)

    async def publish(self, channel: str, data: Any, *, event: str | None = None, id: str | None = None) -> str:  # noqa: A002  # the word of the protocol
        """Publish `data` and wait until the server has handed it to the bus; returns the message's id.

        While disconnected it waits for the connection. Raises ServerError if the server refuses, ConnectionLost if the
        connection ended before the answer (publish again with the same `id` to be recognisable), TypeError or
        ValueError for data that JSON and CBOR cannot hold.
        """
        value = _plain(data)
        link = await self._connection()
        command = Envelope(MessageType.PUB, channel=channel, id=id or uuid4().hex, event=event, data=value)
        reply = await self._request(link, command)
        return str(reply.value["id"])

    async def ping(self) -> float:
        """Seconds of one round trip to the server. While disconnected it waits for the connection."""
        link = await self._connection()
        start = trio.current_time()
        await self._request(link, Envelope(MessageType.PING, id=self._number()))
        return trio.current_time() - start

    # --- for Subscription ---------------------------------------------------------------------------------------

    async def _attach(self, subscription: Subscription) -> None:
        for channel in subscription.channels:
            self._subscriptions.setdefault(channel, []).append(subscription)
        try:
            for channel in subscription.channels:
                await self._subscribe(channel)
        except BaseException:
            self._detach(subscription)
            raise

    def _detach(self, subscription: Subscription) -> None:
        for channel in subscription.channels:
            self._subscriptions[channel].remove(subscription)
            if not self._subscriptions[channel]:
                del self._subscriptions[channel]
                if self._link is not None:
                    self._link.post(Envelope(MessageType.UNSUB, channel=channel))
        self._full.discard(subscription)
        self._room.unpark_all()

    def _has_room(self, subscription: Subscription) -> None:
        if not subscription.full:
            self._full.discard(subscription)
            self._room.unpark_all()

    # --- commands -----------------------------------------------------------------------------------------------

    async def _subscribe(self, channel: str) -> None:
        """Subscribe on the connection there is, or on the next one if that is lost meanwhile: `sub` may be repeated."""
        while True:
            link = await self._connection()
            try:
                await self._request(link, Envelope(MessageType.SUB, channel=channel, id=self._number()))
            except ConnectionLost:
                continue
            return

    async def _connection(self) -> Link:
        """The open connection; waits for it. Raises what ended the client."""
        while self._link is None:
            if self._error is not None:
                raise copy(self._error)
            await self._moved.wait()
        return self._link

    async def _request(self, link: Link, command: Envelope) -> Envelope:
        self._room.unpark_all()  # the answer lies behind whatever the reader has stopped at
        return await link.request(command)

    def _number(self) -> str:
        return f"~{next(self._numbers)}"  # no id that a program would give to a message

    # --- the connection -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        """The client's background tasks around the caller's block; what the block raises leaves as it is."""
        alone: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stay_connected, nursery)
                try:
                    await self._connection()
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
                async with open_link(self._url, self._dialect) as link:
                    await self._use(link, nursery)
            except (ConnectionLost, ConnectionRefused) as error:
                if error.final or not self._connected_once:
                    self._give_up(error)
            if self._error is not None:
                return
            if trio.current_time() - begun > self._backoff.cap:
                self._backoff.reset()
            await trio.sleep(self._backoff.next_delay())

    async def _use(self, link: Link, nursery: trio.Nursery) -> None:
        """Read one connection until it is lost, which is an exception, or the client leaves."""
        nursery.start_soon(link.write)
        nursery.start_soon(self._resume, link)
        try:
            with trio.CancelScope() as self._reading:
                while True:
                    for envelope in await link.receive():
                        self._receive(link, envelope)
                    while any(each.full for each in self._full) and not link.waiting:
                        await self._room.park()
        finally:
            self._reading = None
            link.end()
            self._link = None

    async def _resume(self, link: Link) -> None:
        """Subscribe again to everything, then let the commands come."""
        async with trio.open_nursery() as nursery:
            for channel in list(self._subscriptions):
                nursery.start_soon(self._resubscribe, link, channel)
        if not link.lost and self._error is None:
            self._link = link
            self._connected_once = True
            self._move()

    async def _resubscribe(self, link: Link, channel: str) -> None:
        try:
            await self._request(link, Envelope(MessageType.SUB, channel=channel, id=self._number()))
        except ConnectionLost:
            return  # the next connection tries again
        except ServerError as error:
            for subscription in self._subscriptions.get(channel, ()):
                subscription.fail(error)
            return
        if channel not in self._subscriptions:  # left meanwhile
            link.post(Envelope(MessageType.UNSUB, channel=channel))

    def _receive(self, link: Link, envelope: Envelope) -> None:
        if envelope.type != MessageType.PUB:
            link.settle(envelope)
            return
        message = from_envelope(envelope)
        for subscription in self._subscriptions.get(message.channel, ()):
            subscription.put(message)
            if subscription.full:
                self._full.add(subscription)

    def _give_up(self, error: ConnectionLost | ConnectionRefused) -> None:
        """The client is over: wake and end everything that waits."""
        if self._error is not None:
            return
        error.final = True
        self._error = error
        self._link = None
        for subscription in {each for group in self._subscriptions.values() for each in group}:
            subscription.fail(error)
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()


def _plain(data: Any) -> Any:
    """Dataclasses, dates, sets, tuples and the like as what JSON and CBOR both hold."""
    value = _with_lists(msgspec.to_builtins(data, builtin_types=(bytes,)))
    try:
        check_value(value)
    except MessageError as error:
        raise ValueError(str(error)) from None
    return value


def _with_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return value
