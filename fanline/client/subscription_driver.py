"""The subscriptions under Trio: performs what the state machine of `client/subscriptions` decides, and decides nothing.

It also keeps the reader from reading more than the subscriptions have room for.
"""

from collections.abc import Iterable
from typing import Any

import trio

from fanline.client.connection import ServerConnection
from fanline.client.subscription import Subscription
from fanline.client.subscriptions.client_subscriptions import ClientSubscriptions
from fanline.client.subscriptions.effects import AskAgain, Begin, Deliver, Effect, End, Resumed, Send
from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.envelope import Envelope


class SubscriptionDriver:
    """`machine` decides; ask it directly for what is no event."""

    def __init__(self) -> None:
        self.machine = ClientSubscriptions()
        self._connection: ServerConnection | None = None  # the open one, and the nursery of its tasks
        self._nursery: trio.Nursery | None = None
        self._resumed = trio.Event()  # of that connection
        self._full: set[Subscription[Any]] = set()
        self._room = trio.lowlevel.ParkingLot()  # where the reader waits while a subscription is full

    # --- for Subscription ---------------------------------------------------------------------------------------

    async def enter(self, subscription: Subscription[Any]) -> None:
        """Begin a subscription. Raises ServerError if one of its channels is refused, or what ended the client."""
        self._perform(self.machine.subscribe(subscription.cursors))
        try:
            await subscription.wait_begun()
        except BaseException:
            self.leave(subscription)
            raise

    def leave(self, subscription: Subscription[Any]) -> None:
        """End a subscription."""
        self._perform(self.machine.unsubscribe(subscription.cursors))
        self._full.discard(subscription)
        self.read_on()

    def has_room(self, subscription: Subscription[Any]) -> None:
        """A message was taken from a subscription."""
        if not subscription.full:
            self._full.discard(subscription)
            self.read_on()

    # --- for Client ---------------------------------------------------------------------------------------------

    def connect(self, connection: ServerConnection, nursery: trio.Nursery) -> None:
        """Subscribe to everything on a new connection. `nursery` lives as long as the connection."""
        self._connection, self._nursery = connection, nursery
        self._resumed = trio.Event()
        self._perform(self.machine.connected())

    async def wait_resumed(self) -> None:
        """Wait until the server has answered once for each channel."""
        await self._resumed.wait()

    def disconnect(self) -> None:
        """The connection is lost."""
        self._connection = self._nursery = None
        self.machine.disconnected()

    def close(self, error: ConnectionLost | ConnectionRefused) -> None:
        """The client is over: end all subscriptions, those that are being entered too."""
        self._perform(self.machine.close(error))

    def receive(self, envelope: Envelope) -> None:
        """Take a `pub` or `gap` of the server."""
        self._perform(self.machine.receive(envelope))

    def lose(self, channel: str, error: ServerError) -> None:
        """The server has ended the subscription to a channel."""
        self._perform(self.machine.lose(channel, error))

    def answer(self, reply: Envelope) -> bool:
        """Take any other envelope of the server; whether it was for a subscription."""
        effects = self.machine.answer(reply, trio.current_time())
        self._perform(effects or ())
        return effects is not None

    async def wait_room(self, connection: ServerConnection) -> None:
        """Wait while a subscription is full, unless a command waits: its answer comes after what is not read yet."""
        while self._is_full() and not connection.waiting and not self.machine.waiting:
            await self._room.park()

    def _is_full(self) -> bool:
        return any(subscription.full for subscription in self._full)

    def read_on(self) -> None:
        """Let the reader look again whether it may read."""
        self._room.unpark_all()

    # --- effects ------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                subscription: Subscription[Any] = effect.cursor.owner
                subscription.put(effect.item)
                if subscription.full:
                    self._full.add(subscription)
            elif isinstance(effect, Send):
                self._send(effect.command)
            elif isinstance(effect, Begin):
                effect.cursor.owner.begin(effect.cursor.channel, effect.position)
            elif isinstance(effect, End):
                effect.cursor.owner.end(effect.error)
            elif isinstance(effect, AskAgain):
                self._ask_later(effect)
            elif isinstance(effect, Resumed):
                self._resumed.set()

    def _send(self, command: Envelope) -> None:
        assert self._connection is not None
        try:
            self._connection.post(command)
        except ServerError as error:
            self._perform(self.machine.refuse(command, error, trio.current_time()))
        self.read_on()

    def _ask_later(self, effect: AskAgain) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._ask_again, effect)

    async def _ask_again(self, effect: AskAgain) -> None:
        await trio.sleep_until(effect.at)
        self._perform(self.machine.ask_again(effect.channel, trio.current_time()))
