"""One subscription of a client: its messages, as an async iterator that lives in an `async with` block."""

import math
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from fanline._errors import FanlineError, SlowConsumer
from fanline._message import Message

if TYPE_CHECKING:
    from fanline._client import Client

OVERRUN = 16  # times the buffer: where waiting for room ends and the subscription does


class Subscription:
    """Made by `Client.subscribe`; enter it, then iterate. Inside the block the server routes the channels to it.

    Entering returns when messages published from now on will come, and raises ServerError if the server refuses.
    Leaving unsubscribes. The iterator ends only by an error: ServerError when a reconnect could not subscribe again,
    ConnectionLost when the client gave up, SlowConsumer; messages received before the error come first.

    Buffer: when `buffer` messages wait here, the client stops reading the socket until one is taken, so TCP and then
    the server hold back the rest, and the server's slow consumer policy decides (close 4008: the client comes back).
    All subscriptions of a client share its socket, so a slow one delays the others: give it a client of its own. While
    a command waits for its answer the client reads on, because the answer lies behind those messages; only then can
    the buffer overrun, and at 16 times its size the iterator ends with SlowConsumer.
    """

    def __init__(self, client: "Client", channels: tuple[str, ...], buffer: int) -> None:
        self.channels = channels
        self._client = client
        self._buffer = buffer
        self._held = 0
        self._error: FanlineError | None = None
        self._entered = False
        self._put, self._take = trio.open_memory_channel[Message](math.inf)

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this subscription."""
        return self._held >= self._buffer and self._error is None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a subscription is entered once; call client.subscribe() again")
        self._entered = True
        await self._client._attach(self)  # noqa: SLF001  # client and subscription are one unit in two files
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client._detach(self)  # noqa: SLF001
        self._take.close()

    def __aiter__(self) -> Self:
        if not self._entered:
            raise RuntimeError("enter the subscription first: `async with client.subscribe(...) as messages:`")
        return self

    async def __anext__(self) -> Message:
        try:
            message = await self._take.receive()
        except trio.EndOfChannel:
            assert self._error is not None
            raise copy(self._error) from None  # a copy, since every raise adds to a traceback
        self._held -= 1
        self._client._has_room(self)  # noqa: SLF001
        return message

    def put(self, message: Message) -> None:
        """Append a message; called by the client's reader."""
        if self._error is not None:
            return
        if self._held >= self._buffer * OVERRUN:
            self.fail(SlowConsumer(f"{self._held} messages of {', '.join(self.channels)} were waiting to be taken"))
            return
        self._held += 1
        self._put.send_nowait(message)

    def fail(self, error: FanlineError) -> None:
        """End the iterator with `error`, behind the messages it still holds."""
        if self._error is None:
            self._error = error
            self._put.close()
