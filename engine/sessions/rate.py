"""How much a client may send: an account that empties as time goes by, and is looked at after each read.

A client that sends more is told so once, and is then read more slowly, so that TCP holds it back. One that goes on for
long is closed.
"""

from typing import NamedTuple

CLOSE_AFTER = 30.0
"""Seconds of being held back without a break after which a client is closed."""
_LONGEST_PAUSE = 1.0


class Rate(NamedTuple):
    """What one connection may send."""

    messages: float
    """A second; 0: any number."""
    bytes: float
    """A second; 0: any number."""


class Pace(NamedTuple):
    """What follows from an account."""

    pause: float
    """Seconds to wait before the next read."""
    first: bool
    """Whether the client has just become too fast."""
    over: bool
    """Whether it has been too fast for too long."""


class Account:
    """What one connection has sent, in seconds of its rate: an account of one second is what it may send at once."""

    __slots__ = ("_since", "_time", "_used")

    def __init__(self, now: float) -> None:
        self._used = 0.0
        self._time = now
        self._since: float | None = None  # since when it is held back

    def charge(self, rate: Rate, messages: int, size: int, now: float) -> Pace:
        """Charge what was read just now. `now`: seconds of a clock that never goes back."""
        self._used = max(0.0, self._used - (now - self._time))
        self._time = now
        self._used += max(messages / rate.messages if rate.messages else 0.0, size / rate.bytes if rate.bytes else 0.0)
        debt = self._used - 1.0
        if debt <= 0:
            if self._used < 0.5:
                self._since = None
            return Pace(0.0, first=False, over=False)
        first = self._since is None
        self._since = now if self._since is None else self._since
        return Pace(min(debt, _LONGEST_PAUSE), first, now - self._since > CLOSE_AFTER)
