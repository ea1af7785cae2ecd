"""The clock of the store, as a worker can tell it: all timers go by it, so that no producer's or worker's clock does.

A lease that this worker renews is stamped by the store. The stamp says what the store's clock showed when the renewal
was confirmed, or a little earlier: the clock may be late by the time of an answer, and is never early.
"""

import math

import trio


class StoreClock:
    """Unix milliseconds of the store. It has to be set before a moment is planned by it."""

    def __init__(self) -> None:
        self._ahead = -math.inf  # milliseconds between Trio's clock and the store's

    @property
    def known(self) -> bool:
        return self._ahead > -math.inf

    def now(self) -> float:
        return trio.current_time() * 1000 + self._ahead

    def moment(self, ms: float) -> float:
        """When it will show a time, by Trio's clock."""
        return (ms - self._ahead) / 1000

    def set(self, ms: int, moment: float) -> None:
        """At a moment of Trio's clock it showed this, or a little more."""
        self._ahead = ms - moment * 1000

    def hear(self, ms: int) -> None:
        """It shows this at least."""
        self._ahead = max(self._ahead, ms - trio.current_time() * 1000)
