"""One subscription of a client: its messages, as an async iterator that lives in an `async with` block."""

import logging
import math
from collections.abc import Mapping
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import trio

from fanline.client.message import Gap, Message, Position
from fanline.client.subscriptions.cursor import Cursor
from fanline.client.subscriptions.start import StartPosition
from fanline.errors import FanlineError, SlowConsumer

if TYPE_CHECKING:
    from fanline.client.subscription_driver import SubscriptionDriver

OVERRUN = 16  # times the buffer: where waiting for room ends, and with it the subscription
_log = logging.getLogger("fanline")
Item = TypeVar("Item", bound=Message | Gap)


class Subscription(Generic[Item]):
    """Created by `Client.subscribe`; enter it, then iterate. Inside the block the server sends it its channels.

    Entering returns once messages published from now on will come, and raises ServerError if the server refuses.
    Leaving unsubscribes. The iterator ends only with an error: ServerError if a channel could not be subscribed again
    after a reconnect, ConnectionLost if the client gave up, SlowConsumer; messages received before it come first.

    A durable channel comes as one sequence in the order of its offsets, history first, without repeats, across every
    reconnect. What is lost nevertheless is a Gap: an item of its own, where it belongs between the messages, if the
    subscription was created with `gaps=True`; otherwise a warning of the logger "fanline". It is never silent. An
    ephemeral channel has no offsets, and what passes while the client is away is neither sent again nor reported.

    Buffer: when `buffer` messages wait here, the client stops reading the socket until one is taken, so TCP and then
    the server hold back the rest, and the server's slow consumer policy decides (close 4008: the client comes back).
    All subscriptions of a client share its socket, so a slow one delays the others: give it a client of its own. While
    a command waits for its answer the client reads on, because the answer comes after those messages; only then can
    the buffer overrun, and at 16 times its size the iterator ends with SlowConsumer.
    """

    def __init__(
        self, driver: "SubscriptionDriver", starts: Mapping[str, StartPosition], buffer: int, *, gaps: bool
    ) -> None:
        self.channels = tuple(starts)
        self.cursors = [Cursor(self, channel, start) for channel, start in starts.items()]
        """One for each channel; the state machine moves them."""
        self._driver = driver
        self._buffer = buffer
        self._gaps = gaps
        self._positions: dict[str, Position] = {}
        self._held = 0
        self._error: FanlineError | None = None
        self._entered = False
        self._entering = set(self.channels)  # those that have not begun
        self._begun = trio.Event()  # or will not begin
        self._put, self._take = trio.open_memory_channel[Message | Gap](math.inf)

    @property
    def positions(self) -> dict[str, Position]:
        """How far each durable channel has been taken from this iterator. Store it once a message has been dealt with:
        `client.subscribe(..., positions=stored)` continues right there, in another process too. A channel is missing
        here while nothing is known of it: before the first message of a history.
        """
        return dict(self._positions)

    @property
    def recovered(self) -> bool:
        """Whether the server had everything that was asked for on entering; if not, a Gap says what it did not have."""
        return all(cursor.recovered for cursor in self.cursors)

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this subscription."""
        return self._held >= self._buffer and self._error is None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a subscription is entered once; call client.subscribe() again")
        self._entered = True
        await self._driver.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._driver.leave(self)
        self._take.close()

    def __aiter__(self) -> Self:
        if not self._entered:
            raise RuntimeError("enter the subscription first: `async with client.subscribe(...) as messages:`")
        return self

    async def __anext__(self) -> Item:
        while True:
            item = await self._next_item()
            offset = item.last if isinstance(item, Gap) else item.offset
            if offset is not None and item.channel in self.channels:
                self._positions[item.channel] = Position(offset, item.epoch)
            if self._gaps or isinstance(item, Message):
                return cast("Item", item)

    async def _next_item(self) -> Message | Gap:
        try:
            item = await self._take.receive()
        except trio.EndOfChannel:
            assert self._error is not None
            raise copy(self._error) from None  # a copy, since every raise adds to a traceback
        self._held -= 1
        self._driver.has_room(self)
        return item

    # --- for the driver -----------------------------------------------------------------------------------------

    async def wait_begun(self) -> None:
        """Wait until every channel has begun. Raises the error that ended the subscription before."""
        await self._begun.wait()
        if self._entering:
            assert self._error is not None
            raise copy(self._error)

    def begin(self, channel: str, position: Position | None) -> None:
        """A channel has begun, at this position if it is known before the first message."""
        if position is not None:
            self._positions.setdefault(channel, position)
        self._entering.discard(channel)
        if not self._entering:
            self._begun.set()

    def put(self, item: Message | Gap) -> None:
        """Append a message or gap."""
        if self._error is not None:
            return
        if isinstance(item, Gap) and not self._gaps:
            _log.warning("%s", item)
        if self._held >= self._buffer * OVERRUN:
            self._fail(SlowConsumer(f"{self._held} messages of {', '.join(self.channels)} were waiting to be taken"))
            return
        self._held += 1
        self._put.send_nowait(item)

    def end(self, error: FanlineError) -> None:
        """End the iterator with `error`, after the messages it still holds. Raised on entering if that is under way."""
        self._fail(error)
        self._begun.set()

    def _fail(self, error: FanlineError) -> None:
        if self._error is None:
            self._error = error
            self._put.close()
