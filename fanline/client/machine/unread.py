"""What the iterator of a program has not taken yet, and the error with which it ends. Without I/O."""

from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Generic, TypeVar

from fanline.errors import FanlineError, SlowConsumer

OVERRUN = 16  # times the buffer: where waiting for room ends, and with it the iterator
Item = TypeVar("Item")


class UnreadItems(Generic[Item]):
    """`wake` is called whenever `take` may have something new to say. `name` says in an error what they are."""

    def __init__(self, buffer: int, name: str, wake: Callable[[], None]) -> None:
        self._items: deque[Item] = deque()
        self._buffer = buffer
        self._name = name
        self._wake = wake
        self.error: FanlineError | None = None

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this iterator."""
        return len(self._items) >= self._buffer and self.error is None

    def put(self, item: Item) -> None:
        """Append an item; nothing comes after the end."""
        if self.error is not None:
            return
        if len(self._items) >= self._buffer * OVERRUN:
            self.end(SlowConsumer(f"{len(self._items)} {self._name} were waiting to be taken"))
            return
        self._items.append(item)
        self._wake()

    def end(self, error: FanlineError) -> None:
        """End the iterator with `error`, after what it still holds. The first end counts."""
        if self.error is None:
            self.error = error
            self._wake()

    def leave(self) -> None:
        """The program has left the block; nothing is to be taken any more."""
        self._items.clear()
        self.error = FanlineError(f"these {self._name} were left")
        self._wake()

    def take(self) -> Item | None:
        """The next item; None: wait. Raises the error of the end."""
        if self._items:
            return self._items.popleft()
        if self.error is not None:
            raise copy(self.error)  # a copy, since every raise adds to a traceback
        return None
