"""All channels of a client: to which subscriptions they go, and the tasks that ask the server for them."""

import itertools
from copy import copy
from functools import partial
from typing import Any

import trio

from fanline.client.connection import Link
from fanline.client.cursor import Receiver
from fanline.client.feed import Feed
from fanline.client.subscription import Subscription
from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope, MessageType


class Feeds:
    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}
        self._full: set[Receiver] = set()
        self._room = trio.lowlevel.ParkingLot()  # where the reader waits while a subscription is full
        self._numbers = itertools.count(1)
        self._link: Link | None = None  # the open connection, and the nursery of its tasks
        self._nursery: trio.Nursery | None = None
        self._error: ConnectionLost | ConnectionRefused | None = None
        self._durable: set[str] = set()  # namespaces, as far as an answer has told

    # --- for Subscription ---------------------------------------------------------------------------------------

    async def attach(self, subscription: Subscription[Any]) -> None:
        """Begin a subscription. Raises ServerError if one of its channels is refused, and what ended the client."""
        if self._error is not None:
            raise copy(self._error)
        for cursor in subscription.cursors:
            feed = self._feeds.setdefault(cursor.channel, Feed(cursor.channel))
            feed.cursors.append(cursor)
            self._ask(feed)
        try:
            for cursor in subscription.cursors:
                await cursor.wait_answered()
        except BaseException:
            self.detach(subscription)
            raise

    def detach(self, subscription: Subscription[Any]) -> None:
        """End a subscription; whose channels nobody else here wants are unsubscribed."""
        for cursor in subscription.cursors:
            feed = self._feeds.get(cursor.channel)
            if feed is not None and feed.leave(cursor):
                del self._feeds[cursor.channel]
                if feed.subscribed and self._link is not None:
                    self._link.post(Envelope(MessageType.UNSUB, channel=cursor.channel))
        self._full.discard(subscription)
        self.read_on()

    def has_room(self, subscription: Subscription[Any]) -> None:
        """A message was taken from a subscription."""
        if not subscription.full:
            self._full.discard(subscription)
            self.read_on()

    # --- for Client ---------------------------------------------------------------------------------------------

    async def resume(self, link: Link, nursery: trio.Nursery) -> None:
        """Take a new connection, and subscribe to everything on it; returns when the server has answered once to each.

        `nursery` lives as long as the connection.
        """
        self._link, self._nursery = link, nursery
        for feed in self._feeds.values():
            feed.reconnect()
        while waiting := [feed for feed in self._feeds.values() if not feed.heard.is_set()]:
            for feed in waiting:
                self._ask(feed)
            await waiting[0].heard.wait()

    def lose_link(self) -> None:
        """The connection is over."""
        self._link = self._nursery = None

    def receive(self, envelope: Envelope) -> None:
        """Take a `pub` or `gap` of the server; whatever nobody here wants is left."""
        feed = self._feeds.get(envelope.channel or "")
        if feed is None:
            return
        if feed.receive(envelope):
            self._ask(feed)
        self._full.update(cursor.receiver for cursor in feed.cursors if cursor.receiver.full)

    async def wait_room(self, link: Link) -> None:
        """Wait while a subscription is full, unless a command waits: its answer lies behind what is not read yet."""
        while any(each.full for each in self._full) and not link.waiting:
            await self._room.park()

    def read_on(self) -> None:
        """Let the reader look again whether it may read."""
        self._room.unpark_all()

    def learn(self, reply: Envelope) -> None:
        """Take from an `ok` whether a namespace is durable."""
        if reply.offset is not None:
            self._durable.add(namespace_of(reply.channel or ""))

    def is_durable(self, channel: str) -> bool:
        """Whether an answer has told that the channel's namespace is durable."""
        return namespace_of(channel) in self._durable

    def give_up(self, error: ConnectionLost | ConnectionRefused) -> None:
        """The client is over: end all subscriptions, those that are being entered too."""
        self._error = error
        for feed in self._feeds.values():
            for cursor in feed.cursors:
                cursor.refuse(error)

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask(self, feed: Feed) -> None:
        """Let a feed ask the server for what it wants, unless it is at it; without a connection the next one will."""
        if not feed.asking and self._link is not None and self._nursery is not None:
            feed.asking = True
            self._nursery.start_soon(self._keep_asking, self._link, feed)

    async def _keep_asking(self, link: Link, feed: Feed) -> None:
        while (ask := feed.next_ask()) is not None:
            command = Envelope(
                MessageType.SUB, channel=feed.channel, id=f"~{next(self._numbers)}", **ask.fields()
            )  # the id is none that a program would give to a message
            self.read_on()
            try:
                self.learn(await link.request(command, partial(feed.answer, ask)))
            except ConnectionLost:
                break
            except ServerError as error:
                if feed.refuse(ask, error):
                    await trio.sleep(feed.pace.next_delay())
        feed.asking = False
        feed.heard.set()
