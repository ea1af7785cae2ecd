"""What the iterator of a program has not taken yet, and the error with which it ends. Without I/O."""

from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Generic, TypeVar

from fanline.errors import FanlineError, SlowConsumer

BUFFER_BYTES = 8 << 20
"""A buffer is full at as many bytes of messages as the largest message may have, however few messages they are."""
OVERRUN = 16  # times the buffer: where waiting for room ends, and with it the iterator
Item = TypeVar("Item")


class UnreadItems(Generic[Item]):
    """`wake` is called whenever `take` may have something new to say. `name` says in an error what they are."""

    def __init__(self, buffer: int, name: str, wake: Callable[[], None]) -> None:
        self._items: deque[tuple[int, Item]] = deque()  # each with the bytes that came before it
        self._bytes = 0  # that have come; so none are counted by a thread that takes items
        self._buffer = buffer
        self._name = name
        self._wake = wake
        self.error: FanlineError | None = None

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this iterator."""
        return self._holds(1) and self.error is None

    @property
    def readable(self) -> bool:
        """Whether `take` has something to say."""
        return bool(self._items) or self.error is not None

    def put(self, item: Item, size: int) -> None:
        """Append an item that came in so many bytes; nothing comes after the end."""
        if self.error is not None:
            return
        if self._holds(OVERRUN):
            self.end(SlowConsumer(f"{len(self._items)} {self._name} were waiting to be taken"))
            return
        self._items.append((self._bytes, item))
        self._bytes += size
        self._wake()

    def _holds(self, buffers: int) -> bool:
        """Whether there is as much as fits into so many buffers."""
        try:
            before, _ = self._items[0]
        except IndexError:  # a thread has taken the last one
            return False
        return len(self._items) >= self._buffer * buffers or self._bytes - before >= BUFFER_BYTES * buffers

    def end(self, error: FanlineError) -> None:
        """End the iterator with `error`, after what it still holds. The first end counts."""
        if self.error is None:
            self.error = error
            self._wake()

    def leave(self) -> None:
        """The program has left the block; nothing is to be taken any more."""
        self._items = deque()  # another one: in plain code, a thread may be taking from the old one
        self.error = FanlineError(f"these {self._name} were left")
        self._wake()

    def take(self) -> Item | None:
        """The next item; None: wait. Raises the error of the end."""
        items = self._items
        if items:
            return items.popleft()[1]
        if self.error is not None:
            raise copy(self.error)  # a copy, since every raise adds to a traceback
        return None
