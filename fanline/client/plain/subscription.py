"""One subscription of a client in plain code: its messages, as an iterator that lives in a `with` block."""

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from fanline.client.message import Gap, Message
from fanline.client.subscription import Item, SubscribedChannels
from fanline.client.subscriptions.start import StartPosition

if TYPE_CHECKING:  # what follows imports asyncio, which a program may never need
    from fanline.client.shells.plain_shell import PlainShell

_T = TypeVar("_T")


class PlainSubscription(SubscribedChannels, Generic[Item]):
    """Created by `PlainClient.subscribe`: what Subscription is, for `with` and `for`. It says what is promised.

    Iterating waits for as long as it takes; `receive(timeout)` does not. Several threads may take from one
    subscription: each message goes to one of them.
    """

    def __init__(
        self,
        shell: "PlainShell",
        starts: Mapping[str, StartPosition],
        buffer: int,
        *,
        gaps: bool,
        timeout: float | None,
    ) -> None:
        super().__init__(shell.bell(), starts, buffer, gaps=gaps)
        self._shell = shell
        self._timeout = timeout
        self._taking = threading.Lock()

    def __enter__(self) -> Self:
        self._enter_once()
        try:
            self._shell.enter(self._local, self._bell, self._timeout)
        except BaseException:  # Ctrl-C may come when it has just been entered
            self._shell.leave(self._local)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shell.leave(self._local)

    def __iter__(self) -> Self:
        self._check_entered()
        return self

    def __next__(self) -> Item:
        return self.receive()

    def receive(self, timeout: float | None = None) -> Item:
        """The next item. Raises TimeoutError if none comes within `timeout` seconds, and what ends the iterator."""
        return self._receive_first(lambda item: item, timeout)

    def _receive_first(self, read: Callable[[Item], _T | None], timeout: float | None) -> _T:
        """What `read` makes of the next item of which it makes anything. Raises as `receive` does."""
        self._check_entered()

        def take() -> _T | None:
            while (item := self._take()) is not None:
                if (found := read(cast("Item", item))) is not None:
                    return found
            return None

        return self._shell.wait_for(take, lambda: self._local.readable, self._bell, timeout)

    def _take(self) -> Message | Gap | None:
        with self._taking:
            was_full, item = self._local.full, self._local.take()
        if was_full:
            self._shell.taken()
        return item
