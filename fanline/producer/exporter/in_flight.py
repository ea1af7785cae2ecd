"""Which messages of a task are on their way to JetStream, and what may join them. Pure.

JetStream may refuse one message and store those behind it, so whatever is in flight together may be stored in another
order. Only output is in flight together: every other event waits until all that went before is acknowledged, and
nothing follows it until it is acknowledged itself. So an event that says how the task is never changes places with
another one, the end comes last, and at worst some lines change places with others that were in flight with them.
"""

from collections.abc import Iterator

from fanline.producer.exporter.pending_publish import PendingPublish
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.serials import WINDOW as TAKEN_WINDOW

WINDOW = 100
"""Numbers from the oldest message in flight to the newest: fewer than the fold can tell apart."""
assert WINDOW <= TAKEN_WINDOW


class InFlight:
    """The messages that are published and not acknowledged, oldest first, each with the number of its request."""

    def __init__(self) -> None:
        self._messages: dict[int, tuple[PendingPublish, int]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[tuple[PendingPublish, int]]:
        return iter(tuple(self._messages.values()))

    @property
    def room(self) -> int:
        """How many more output messages may be published now; with nothing in flight, also one of any other event."""
        if not self._messages:
            return WINDOW
        oldest, newest = next(iter(self._messages)), next(reversed(self._messages))
        only_output = self._messages[oldest][0].event is TaskEvent.OUTPUT
        return WINDOW - (newest - oldest + 1) if only_output else 0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(pending.payload) for pending, _ in self._messages.values())

    def forget_output(self) -> None:
        """It is not published again."""
        kept = {number: each for number, each in self._messages.items() if each[0].event is not TaskEvent.OUTPUT}
        self._messages = kept

    def add(self, pending: PendingPublish, request: int) -> None:
        """It is published, perhaps again."""
        self._messages[pending.number] = pending, request

    def remove(self, pending: PendingPublish) -> None:
        """It is acknowledged, perhaps again."""
        self._messages.pop(pending.number, None)
