"""Messages of a durable channel that are held back, because something before them may be missing. No I/O.

What they take counts in the budget of the logs (log_budget.py). Over a bound the oldest ones are let go: they are read
from the stream anyway.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.durable.log import Readable
from fanline.engine.channels.durable.log_budget import LogBudget, weight_of
from fanline.protocol.envelope import Envelope

HELD_MOST = 10_000
"""Messages held for one channel."""


class HeldMessages:
    """In the order in which they came."""

    __slots__ = ("_budget", "_messages", "_weight")

    def __init__(self, budget: LogBudget) -> None:
        self._budget = budget
        self._messages: deque[Readable] | None = None  # most channels hold nothing
        self._weight = 0

    def __iter__(self) -> Iterator[Readable]:
        return iter(self._messages or ())

    @property
    def newest(self) -> int:
        """Offset of the newest one; 0 for none."""
        return max((position.offset for _, position in self), default=0)

    def add(self, envelope: Envelope | None, position: StreamPosition) -> None:
        """Hold one more, within the bounds."""
        held = self._messages = self._messages or deque()
        held.append((envelope, position))
        self._weigh(envelope, 1)
        self._budget.make_room()
        # The newest one stays whatever its size: it shows that there is something to read.
        while len(held) > 1 and self._is_too_much(len(held)):
            self._weigh(held.popleft()[0], -1)

    def take(self) -> Sequence[Readable]:
        """All of them, which are held no longer."""
        held, self._messages = self._messages or (), None
        self._budget.used -= self._weight
        self._weight = 0
        return held

    def _is_too_much(self, count: int) -> bool:
        budget = self._budget
        return count > HELD_MOST or self._weight > budget.share or budget.used > budget.most

    def _weigh(self, envelope: Envelope | None, sign: int) -> None:
        weight = 0 if envelope is None else sign * weight_of(envelope)
        self._weight += weight
        self._budget.used += weight
