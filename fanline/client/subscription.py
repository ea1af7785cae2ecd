"""One subscription of a client: its messages, as an async iterator that lives in an `async with` block."""

import logging
import math
from collections.abc import Mapping
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import trio

from fanline.client.cursor import Cursor, Wish
from fanline.client.message import Gap, Message, Position
from fanline.errors import FanlineError, SlowConsumer

if TYPE_CHECKING:
    from fanline.client.feeds import Feeds

OVERRUN = 16  # times the buffer: where waiting for room ends and the subscription does
_log = logging.getLogger("fanline")
Item = TypeVar("Item", bound=Message | Gap)


class Subscription(Generic[Item]):
    """Made by `Client.subscribe`; enter it, then iterate. Inside the block the server routes the channels to it.

    Entering returns when messages published from now on will come, and raises ServerError if the server refuses.
    Leaving unsubscribes. The iterator ends only by an error: ServerError when a reconnect could not subscribe again,
    ConnectionLost when the client gave up, SlowConsumer; messages received before the error come first.

    A durable channel comes as one sequence in the order of its offsets, history first, without repeats, across every
    reconnect. What is lost all the same is a Gap: an item of its own between the messages where it belongs if the
    subscription was made with `gaps=True`, else a warning of the logger "fanline". It is never silent. An ephemeral
    channel has no offsets, and what passes while the client is away is neither sent again nor told.

    Buffer: when `buffer` messages wait here, the client stops reading the socket until one is taken, so TCP and then
    the server hold back the rest, and the server's slow consumer policy decides (close 4008: the client comes back).
    All subscriptions of a client share its socket, so a slow one delays the others: give it a client of its own. While
    a command waits for its answer the client reads on, because the answer lies behind those messages; only then can
    the buffer overrun, and at 16 times its size the iterator ends with SlowConsumer.
    """

    def __init__(self, feeds: "Feeds", wishes: Mapping[str, Wish], buffer: int, *, gaps: bool) -> None:
        self.channels = tuple(wishes)
        self.cursors = [Cursor(self, channel, wish) for channel, wish in wishes.items()]
        """One for each channel; the client moves them."""
        self._feeds = feeds
        self._buffer = buffer
        self._gaps = gaps
        self._positions: dict[str, Position] = {}
        self._held = 0
        self._error: FanlineError | None = None
        self._entered = False
        self._put, self._take = trio.open_memory_channel[Message | Gap](math.inf)

    @property
    def positions(self) -> dict[str, Position]:
        """How far each durable channel was taken from this iterator. Store it when a message has been dealt with, and
        `client.subscribe(..., positions=stored)` goes on right there, in another process too. A channel is missing here
        while nothing is known of it: before the first message of a history.
        """
        return dict(self._positions)

    @property
    def recovered(self) -> bool:
        """Whether the server, on entering, had everything that was asked for; if not, a Gap tells what it had not."""
        return all(cursor.recovered for cursor in self.cursors)

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this subscription."""
        return self._held >= self._buffer and self._error is None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a subscription is entered once; call client.subscribe() again")
        self._entered = True
        await self._feeds.attach(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feeds.detach(self)
        self._take.close()

    def __aiter__(self) -> Self:
        if not self._entered:
            raise RuntimeError("enter the subscription first: `async with client.subscribe(...) as messages:`")
        return self

    async def __anext__(self) -> Item:
        while True:
            item = await self._next_item()
            offset = item.last if isinstance(item, Gap) else item.offset
            if offset is not None:
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
        self._feeds.has_room(self)
        return item

    def put(self, item: Message | Gap) -> None:
        """Append a message or gap; called by the client's reader."""
        if self._error is not None:
            return
        if isinstance(item, Gap) and not self._gaps:
            _log.warning("%s", item)
        if self._held >= self._buffer * OVERRUN:
            self.fail(SlowConsumer(f"{self._held} messages of {', '.join(self.channels)} were waiting to be taken"))
            return
        self._held += 1
        self._put.send_nowait(item)

    def place(self, channel: str, position: Position) -> None:
        """Where a channel begins, before its first message; called by the client's reader."""
        self._positions.setdefault(channel, position)

    def fail(self, error: FanlineError) -> None:
        """End the iterator with `error`, behind the messages it still holds."""
        if self._error is None:
            self._error = error
            self._put.close()
