"""A subscription: one object from a client's `sub` to its end, which holds the channel open in hub and bus.

A channel is open in this worker while there is interest in it. Interest is acquired and released in one place, for hub
and bus alike, by an `async with`:

    async with ChannelInterest(router, "task:42") as channel:     # open inside the block, whatever happens in it

    subscription = ChannelSubscription(router, "task:42", encoding, outbox)
    async with subscription as channel:                           # open inside the block,
        subscription.activate()                                   # and after it only if the subscription is active

So nothing is left behind on any path. A client's `ok` always comes before the channel's first message: the bus is
joined first, and messages are let through by `activate`, in the very step in which the client has everything before.
"""

from enum import Enum, auto
from types import TracebackType

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.hub import Hub
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding


class Router:
    """What opens channels: the hub and the bus of one worker. `timeout`: seconds the bus has to confirm a join."""

    def __init__(self, hub: Hub, bus: Bus, timeout: float) -> None:
        self._hub = hub
        self._bus = bus
        self._timeout = timeout

    def acquire(self, name: str) -> Channel:
        """Open a channel, or count one more interest in it."""
        channel = self._hub.open(name)
        if channel.interest == 1:
            self._bus.join(name)
        return channel

    def release(self, channel: Channel) -> None:
        """Count one interest less; the last one closes the channel."""
        if self._hub.close(channel):
            self._bus.leave(channel.name)

    async def wait_routed(self, name: str) -> None:
        """Wait until the bus routes a channel here. BusError."""
        if self._bus.is_joined(name):
            return  # as for all but the first who join a channel: a scope would take a tenth of their handshakes
        with trio.move_on_after(self._timeout):
            await self._bus.wait_joined(name)
            return
        raise BusError(f"the bus did not confirm the subscription within {self._timeout:g} seconds")


class ChannelInterest:
    """Holds one channel open: `async with` it. BusError on entering: then it is not held."""

    __slots__ = ("_channel", "_router", "name")

    def __init__(self, router: Router, name: str) -> None:
        self._router = router
        self._channel: Channel | None = None  # while it is held
        self.name = name

    @property
    def channel(self) -> Channel:
        """The channel that is held open."""
        assert self._channel is not None
        return self._channel

    async def __aenter__(self) -> Channel:
        channel = self._channel = self._router.acquire(self.name)
        try:
            await self._router.wait_routed(self.name)
        except BaseException:
            self._release()
            raise
        return channel

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._router.release(channel)


class SubscriptionState(Enum):
    JOINING = auto()  # not answered yet: the client does not get the channel's messages
    CATCHING_UP = auto()  # answered: the client is sent its history, and by the log what comes meanwhile
    ACTIVE = auto()  # every message of the channel goes to the client
    LEAVING = auto()  # over: nothing is held


class SubscriptionEvent(Enum):
    ACTIVATE = auto()  # the client has everything up to now
    PAUSE = auto()  # the client has its answer, and is sent its history first
    LEAVE = auto()  # `unsub`, a `sub` that failed, or the end of the connection


SUBSCRIPTION: dict[tuple[SubscriptionState, SubscriptionEvent], SubscriptionState] = {
    (SubscriptionState.JOINING, SubscriptionEvent.ACTIVATE): SubscriptionState.ACTIVE,
    (SubscriptionState.JOINING, SubscriptionEvent.PAUSE): SubscriptionState.CATCHING_UP,
    (SubscriptionState.JOINING, SubscriptionEvent.LEAVE): SubscriptionState.LEAVING,
    (SubscriptionState.CATCHING_UP, SubscriptionEvent.ACTIVATE): SubscriptionState.ACTIVE,
    (SubscriptionState.CATCHING_UP, SubscriptionEvent.LEAVE): SubscriptionState.LEAVING,
    (SubscriptionState.ACTIVE, SubscriptionEvent.ACTIVATE): SubscriptionState.ACTIVE,
    (SubscriptionState.ACTIVE, SubscriptionEvent.PAUSE): SubscriptionState.CATCHING_UP,
    (SubscriptionState.ACTIVE, SubscriptionEvent.LEAVE): SubscriptionState.LEAVING,
    # Cut off in the middle of a join: first the join gives it up, then the end of its session.
    (SubscriptionState.LEAVING, SubscriptionEvent.LEAVE): SubscriptionState.LEAVING,
}


class ChannelSubscription(ChannelInterest):
    """One client's subscription of one channel. After the block of an `async with` it holds the channel only if it is
    active: a `sub` that fails leaves nothing behind, and one that fails on an active subscription leaves that active.
    """

    __slots__ = ("encoding", "outbox", "state")

    def __init__(self, router: Router, name: str, encoding: Encoding, outbox: Outbox) -> None:
        super().__init__(router, name)
        self.encoding = encoding
        self.outbox = outbox
        self.state = SubscriptionState.JOINING

    async def __aenter__(self) -> Channel:
        return self.channel if self.state is SubscriptionState.ACTIVE else await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.state is not SubscriptionState.ACTIVE:
            self.lose()

    def activate(self) -> None:
        """Let the channel's messages through: those received after this call, no others."""
        self._move(SubscriptionEvent.ACTIVATE)

    def pause(self) -> None:
        """Stop the messages, also those that are about to be sent; the channel stays open."""
        self._move(SubscriptionEvent.PAUSE)

    def leave(self) -> None:
        """End it, and release the channel."""
        self._move(SubscriptionEvent.LEAVE)
        self._release()

    def lose(self) -> None:
        """End it, because its connection has ended or its `sub` has failed."""
        self.leave()

    def _move(self, event: SubscriptionEvent) -> None:
        before, self.state = self.state, SUBSCRIPTION[self.state, event]
        if self.state is before:
            return
        if before is SubscriptionState.ACTIVE:
            self.channel.discard(self.encoding, self.outbox)
        elif before is SubscriptionState.CATCHING_UP:
            self.channel.stop_awaiting(self.outbox)
        if self.state is SubscriptionState.ACTIVE:
            self.channel.add(self.encoding, self.outbox)
        elif self.state is SubscriptionState.CATCHING_UP:
            self.channel.await_log(self.outbox)
