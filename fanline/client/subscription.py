"""One subscription of a client: its messages, as an async iterator that lives in an `async with` block."""

from collections.abc import Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import trio

from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.message import Gap, Message, Position
from fanline.client.shell import Bell, TrioShell
from fanline.client.subscriptions.start import StartPosition

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

    def __init__(self, shell: TrioShell, starts: Mapping[str, StartPosition], buffer: int, *, gaps: bool) -> None:
        self._shell = shell
        self._bell = Bell()
        self._local = LocalSubscription(starts, buffer, self._bell.ring, gaps=gaps)
        self._entered = False

    @property
    def channels(self) -> tuple[str, ...]:
        """What it was created for."""
        return self._local.channels

    @property
    def positions(self) -> dict[str, Position]:
        """How far each durable channel has been taken from this iterator. Store it once a message has been dealt with:
        `client.subscribe(..., positions=stored)` continues right there, in another process too. A channel is missing
        here while nothing is known of it: before the first message of a history.
        """
        return dict(self._local.positions)

    @property
    def recovered(self) -> bool:
        """Whether the server had everything that was asked for on entering; if not, a Gap says what it did not have."""
        return self._local.recovered

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a subscription is entered once; call client.subscribe() again")
        self._entered = True
        await self._shell.enter(self._local, self._bell)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shell.leave(self._local)

    def __aiter__(self) -> Self:
        if not self._entered:
            raise RuntimeError("enter the subscription first: `async with client.subscribe(...) as messages:`")
        return self

    async def __anext__(self) -> Item:
        await trio.lowlevel.checkpoint()
        while (item := self._local.take()) is None:
            await self._bell.wait()
        self._shell.taken()
        return cast("Item", item)
