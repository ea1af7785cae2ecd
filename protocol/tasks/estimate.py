"""How fast a task goes, and how long it will still take: estimated from its progress. Pure; the time is an argument.

The rate is the progress made, in an average that forgets: what happened `MEMORY` seconds ago counts a third of what
happens now. Until progress was seen over `WARM_UP` seconds, rate and ETA are unknown rather than wrong.

The ETA is made to be shown, so it only ever counts down: a better estimate takes effect at once, a worse one only when
the one that was shown has run out, which makes it unknown until the next progress. `seconds_left` is what to show.
"""

import math
from typing import NamedTuple, Self

MEMORY = 10.0
"""Seconds after which progress counts only 1/e in the rate."""
WARM_UP = 1.0
"""Seconds of progress before anything is said."""
LONGEST = 31_536_000.0
"""A year: an ETA beyond it is unknown."""


class Estimate(NamedTuple):
    """What is known after some progress. Plain enough to be stored as JSON."""

    value: float = 0.0
    """The newest progress, in units (percent, or whatever `done` counts)."""
    time: int | None = None
    """When that was, Unix ms; None before any."""
    begun: int = 0
    """When the first progress was, Unix ms."""
    gained: float = 0.0
    spent: float = 0.0
    rate: float | None = None
    """Units a second; None while unknown."""
    eta: float | None = None
    """Seconds left at `time`, as shown; None while unknown."""

    def advance(self, value: float, goal: float | None, time: int) -> Self:
        """The estimate after progress to `value` of `goal` units at `time`; None: nobody knows how many there are.

        Progress that goes back (the producer began a stage anew) starts the estimate over.
        """
        if self.time is None or value < self.value:
            return self._replace(value=value, time=time, begun=time, gained=0.0, spent=0.0, rate=None, eta=None)
        span = (time - self.time) / 1000
        if span <= 0:  # several in one millisecond, or a clock that was set back: counted with the next
            return self
        kept = math.exp(-span / MEMORY)
        gained = self.gained * kept + (value - self.value)
        spent = self.spent * kept + span
        rate = gained / spent if time - self.begun >= WARM_UP * 1000 else None
        rate = rate or None  # without progress there is no rate, and none to divide by
        eta = None if rate is None or goal is None else self._shown(max(0.0, goal - value) / rate, time)
        return self._replace(value=value, time=time, gained=gained, spent=spent, rate=rate, eta=eta)

    def resume(self, time: int) -> Self:
        """Go on at `time` after a pause: the time in which no progress was to be expected does not count."""
        if self.time is None or time <= self.time:
            return self
        return self._replace(time=time, begun=self.begun + time - self.time)

    def _shown(self, estimated: float, time: int) -> float | None:
        """What to show of a fresh estimate."""
        left = seconds_left(self.eta, self.time, time)
        if left is None or estimated <= left:
            return estimated if estimated <= LONGEST else None
        return left or None


def seconds_left(eta: float | None, told: int | None, now: int) -> float | None:
    """What to show at `now` (Unix ms) of an ETA that was told at `told`: it counts down; 0 once it has run out."""
    if eta is None or told is None:
        return None
    return max(0.0, eta - max(0, now - told) / 1000)
