"""Exponential back-off with full jitter, so that clients that were cut off together do not reconnect together."""

import random
from collections.abc import Callable

_MAX_EXPONENT = 32  # beyond every sensible cap; keeps the power small


class Backoff:
    """Delays in seconds: the n-th since the last reset is uniform in [0, min(cap, base * 2**n)], counted from 0."""

    def __init__(
        self, base: float = 0.25, cap: float = 15.0, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.cap = cap
        self._base = base
        self._uniform = uniform
        self._attempts = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        limit = min(self.cap, self._base * 2 ** min(self._attempts, _MAX_EXPONENT))
        self._attempts += 1
        return self._uniform(0.0, limit)

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self._attempts = 0
