"""One subscription of a program: its cursors, and what its iterator has not taken yet. Without I/O."""

import logging
from collections.abc import Callable, Mapping
from copy import copy

from fanline.client.machine.unread import UnreadItems
from fanline.client.message import Gap, Message, Position
from fanline.client.subscriptions.cursor import Cursor
from fanline.client.subscriptions.start import StartPosition
from fanline.errors import FanlineError

_log = logging.getLogger("fanline")


class LocalSubscription:
    """`wake` is called whenever it has begun, or `take` may have something new to say."""

    def __init__(
        self, starts: Mapping[str, StartPosition], buffer: int, wake: Callable[[], None], *, gaps: bool
    ) -> None:
        self.channels = tuple(starts)
        self.cursors = [Cursor(self, channel, start) for channel, start in starts.items()]
        """One for each channel; the state machine moves them."""
        self.positions: dict[str, Position] = {}
        """How far each durable channel was taken."""
        self._gaps = gaps
        self._entering = set(self.channels)  # those that have not begun
        self._wake = wake
        self._unread = UnreadItems[Message | Gap](buffer, f"messages of {', '.join(self.channels)}", wake)

    @property
    def recovered(self) -> bool:
        """Whether the server had everything that was asked for on entering."""
        return all(cursor.recovered for cursor in self.cursors)

    @property
    def full(self) -> bool:
        """True while no more should be read from the socket for this subscription."""
        return self._unread.full

    @property
    def readable(self) -> bool:
        """Whether `take` may have something to say."""
        return self._unread.readable

    @property
    def begun(self) -> bool:
        """Whether every channel has begun. Raises the error that ended the subscription before."""
        if not self._entering:
            return True
        if self._unread.error is not None:
            raise copy(self._unread.error)
        return False

    def begin(self, channel: str, position: Position | None) -> None:
        """A channel has begun, at this position if it is known before the first message."""
        if position is not None:
            self.positions.setdefault(channel, position)
        self._entering.discard(channel)
        self._wake()

    def put(self, item: Message | Gap, size: int = 0) -> None:
        """Append a message or gap that came in `size` bytes."""
        if self._unread.error is None and isinstance(item, Gap) and not self._gaps:
            _log.warning("%s", item)
        self._unread.put(item, size)

    def end(self, error: FanlineError) -> None:
        """End the iterator with `error`, after the messages it still holds. Raised on entering if that is under way."""
        self._unread.end(error)

    def leave(self) -> None:
        """The program has left it."""
        self._unread.leave()

    def take(self) -> Message | Gap | None:
        """The next item for the program; None: wait. Raises the error of the end."""
        while (item := self._unread.take()) is not None:
            offset = item.last if isinstance(item, Gap) else item.offset
            if offset is not None and item.channel in self.channels:
                self.positions[item.channel] = Position(offset, item.epoch)
            if self._gaps or isinstance(item, Message):
                return item
        return None


class UnreadSubscription(LocalSubscription):
    """Keeps a channel subscribed, and takes no messages. `ended` is called if it ends."""

    def __init__(self, channel: str, wake: Callable[[], None], ended: Callable[[FanlineError], None]) -> None:
        super().__init__({channel: StartPosition()}, 1, wake, gaps=True)
        self._ended = ended

    def put(self, item: Message | Gap, size: int = 0) -> None:
        """Drop it."""

    def end(self, error: FanlineError) -> None:
        super().end(error)
        self._ended(error)
