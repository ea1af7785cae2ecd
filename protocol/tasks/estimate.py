"""How fast a task goes and how long it will still take, estimated from its progress. Pure; time is an argument.

The rate is an exponentially weighted average of the progress: what happened `MEMORY` seconds ago counts about a third
of what happens now. Rate and ETA are unknown rather than wrong until progress has been seen for `WARM_UP` seconds.

The ETA is made to be shown, so it only counts down: a lower estimate takes effect at once, a higher one only after the
ETA that was shown has run out, which makes it unknown until the next progress. `seconds_left` is the value to show.
"""

import math

import msgspec
from msgspec.structs import replace

MEMORY = 10.0
"""Seconds after which progress counts only 1/e of its weight in the rate."""
WARM_UP = 1.0
"""Seconds of progress before there is an estimate."""
LONGEST = 31_536_000.0
"""A year: an ETA beyond it is unknown."""


class Estimate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known after some progress. Stored as a JSON array."""

    value: float = 0.0
    """The latest progress, in units (percent, or whatever `done` counts)."""
    time: int | None = None
    """When that was, Unix ms; None before any progress."""
    begun: int = 0
    """When the first progress was, Unix ms."""
    gained: float = 0.0
    spent: float = 0.0
    rate: float | None = None
    """Units a second; None while unknown."""
    eta: float | None = None
    """Seconds left at `time`, as shown; None while unknown."""

    def advance(self, value: float, goal: float | None, time: int) -> "Estimate":
        """The estimate after progress to `value` of `goal` units at `time`; the goal is None if it is unknown.

        Progress that goes back, as when the producer restarts a stage, starts the estimate over.
        """
        if self.time is None or value < self.value:
            return Estimate(value, time, begun=time)
        span = (time - self.time) / 1000
        if span <= 0:  # several in one millisecond, or a clock that was set back: counts with the next progress
            return self
        kept = math.exp(-span / MEMORY)
        gained = self.gained * kept + (value - self.value)
        spent = self.spent * kept + span
        rate = gained / spent if time - self.begun >= WARM_UP * 1000 else None
        rate = rate or None  # without progress the rate is unknown, not 0, by which nothing can be divided
        eta = None if rate is None or goal is None else self._shown(max(0.0, goal - value) / rate, time)
        return Estimate(value, time, self.begun, gained, spent, rate, eta)

    def resume(self, time: int) -> "Estimate":
        """Continue at `time` after a pause, in which no progress was to be expected: its time does not count."""
        if self.time is None or time <= self.time:
            return self
        return replace(self, time=time, begun=self.begun + time - self.time)

    def _shown(self, estimated: float, time: int) -> float | None:
        """The ETA to show, given a fresh estimate."""
        left = seconds_left(self.eta, self.time, time)
        if left is None or estimated <= left:
            return estimated if estimated <= LONGEST else None
        return left or None


def seconds_left(eta: float | None, told: int | None, now: int) -> float | None:
    """The ETA to show at `now` (Unix ms), if it was `eta` at `told`: it counts down, to 0 once it has run out."""
    if eta is None or told is None:
        return None
    return max(0.0, eta - max(0, now - told) / 1000)
