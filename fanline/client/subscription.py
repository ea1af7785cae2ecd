"""One subscription of a client: its messages, as an async iterator that lives in an `async with` block."""

from collections.abc import Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from fanline.client.entered_once import EnteredOnce
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.message import Gap, Message, Position
from fanline.client.shells.shell import Bell, ClientShell
from fanline.client.subscriptions.start import StartPosition

Item = TypeVar("Item", bound=Message | Gap)


class SubscribedChannels(EnteredOnce):
    """What subscriptions are in all programs, with an event loop and without."""

    def __init__(self, bell: Bell, starts: Mapping[str, StartPosition], buffer: int, *, gaps: bool) -> None:
        if buffer < 1:
            raise ValueError("buffer: there has to be room for at least one message")
        super().__init__()
        self._bell = bell
        self._local = LocalSubscription(starts, buffer, bell.ring, gaps=gaps)

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


class Subscription(SubscribedChannels, Generic[Item]):
    """Created by `Client.subscribe`; enter it, then iterate. Inside the block the server sends it its channels.

    Entering returns once messages published from now on will come, and raises ServerError if the server refuses.
    Leaving unsubscribes. The iterator ends only with an error: ServerError if a channel could not be subscribed again
    after a reconnect, ConnectionLost if the client gave up, SlowConsumer; messages received before it come first.
    After a `break`, another loop goes on where this one stopped.

    A durable channel comes as one sequence in the order of its offsets, history first, without repeats, across every
    reconnect. What is lost nevertheless is a Gap: an item of its own, where it belongs between the messages, if the
    subscription was created with `gaps=True`; otherwise a warning of the logger "fanline". It is never silent. An
    ephemeral channel has no offsets, and what passes while the client is away is neither sent again nor reported.

    Buffer: when `buffer` messages wait here, or fewer that have 8 MiB, the client stops reading the socket until one is
    taken, so TCP and then the server hold back the rest, and the server's slow consumer policy decides (close 4008: the
    client comes back). All subscriptions of a client share its socket, so a slow one delays the others: give it a
    client of its own. While a command waits for its answer the client reads on, because the answer comes after those
    messages; only then can the buffer overrun, and at 16 times its size the iterator ends with SlowConsumer.
    """

    def __init__(self, shell: ClientShell, starts: Mapping[str, StartPosition], buffer: int, *, gaps: bool) -> None:
        super().__init__(shell.bell(), starts, buffer, gaps=gaps)
        self._shell = shell

    async def __aenter__(self) -> Self:
        self._enter_once()
        await self._shell.enter(self._local, self._bell)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shell.leave(self._local)

    def __aiter__(self) -> Self:
        self._check_entered()
        return self

    async def __anext__(self) -> Item:
        await self._shell.checkpoint()
        while (item := self._local.take()) is None:
            self._check_entered()
            await self._bell.wait()
        self._shell.taken()
        return cast("Item", item)
