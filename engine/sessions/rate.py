"""How much a client may send: an account that empties as time goes by, and is checked after each read.

A client that sends more is warned once, and is then read more slowly, so that TCP holds it back. One that goes on for
long is closed.
"""

from typing import NamedTuple

import trio

from fanline.engine.limits import Limit

CLOSE_AFTER = 30.0
"""Seconds of being held back without a break after which a client is closed."""
_LONGEST_PAUSE = 1.0
_HEAVY_SECONDS = 0.002  # of work for one message: documents of 64 KiB take less, as a rule
_SHARE = 0.05
_HELD_BACK_SHARE = 0.005
_LONGEST_REST = 5.0


class Rate(NamedTuple):
    """What one connection may send."""

    messages: float
    """A second; 0: any number."""
    bytes: float
    """A second; 0: any number."""
    share: float = 0.0
    """Seconds of work a second; 0: any number."""


class Work(NamedTuple):
    """What one read of a connection has brought."""

    messages: int
    size: int
    """Bytes."""
    seconds: float = 0.0
    """Of CPU time, to decode the messages."""
    answered: int = 0
    """Bytes of the answers: of a history, or a snapshot. They count as bytes do, but apart, and without a warning:
    a client that comes back to many channels does nothing wrong.
    """


class Pace(NamedTuple):
    """What follows from an account."""

    pause: float
    """Seconds to wait before the next read."""
    first: Limit | None
    """What the client has just become too fast for."""
    heavy: bool
    """Whether it has to wait because of the answers that it got."""
    over: bool
    """Whether it has been too fast for too long."""


class Account:
    """What one connection has sent, in seconds of its rate: an account of one second is what it may send at once."""

    __slots__ = ("_answered", "_since", "_time", "_used")

    def __init__(self, now: float) -> None:
        self._used = 0.0
        self._answered = 0.0
        self._time = now
        self._since: float | None = None  # since when it is held back

    def charge(self, rate: Rate, work: Work, now: float) -> Pace:
        """Charge what was read just now. `now`: seconds of a clock that never goes back."""
        passed, self._time = now - self._time, now
        self._used = max(0.0, self._used - passed) + _seconds_of(rate, work)
        self._answered = max(0.0, self._answered - passed) + _ratio(work.answered, rate.bytes)
        debt, heavy = self._used - 1.0, self._answered - 1.0
        if debt <= 0:
            if self._used < 0.5:
                self._since = None
            return Pace(min(max(0.0, heavy), _LONGEST_PAUSE), first=None, heavy=heavy > 0, over=False)
        first = _tightest(rate, work) if self._since is None else None
        self._since = now if self._since is None else self._since
        return Pace(min(max(debt, heavy), _LONGEST_PAUSE), first, heavy > 0, now - self._since > CLOSE_AFTER)


class SlowLane:
    """What messages that take long to read may take of a worker together: they are read one after the other, with a
    rest after each that is much longer than the work. A hundred clients that send nothing but tiny values take no more
    than one does; and if they are held back, too little for the slowest percent of the others' messages to be slower.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def rest(self, seconds: float, *, held_back: bool) -> None:
        """Wait for this connection's turn, and then until its work was only a small share of the time."""
        if not held_back and seconds < _HEAVY_SECONDS:
            return
        async with self._lock:
            await trio.sleep(min(seconds / (_HELD_BACK_SHARE if held_back else _SHARE), _LONGEST_REST))


def _seconds_of(rate: Rate, work: Work) -> float:
    return max(_ratio(work.messages, rate.messages), _ratio(work.size, rate.bytes), _ratio(work.seconds, rate.share))


def _tightest(rate: Rate, work: Work) -> Limit:
    """The limit that this work uses up most of."""
    used = {
        Limit.MESSAGES: _ratio(work.messages, rate.messages),
        Limit.BYTES: _ratio(work.size, rate.bytes),
        Limit.WORK: _ratio(work.seconds, rate.share),
    }
    return max(used, key=lambda limit: used[limit])


def _ratio(amount: float, limit: float) -> float:
    return amount / limit if limit else 0.0
