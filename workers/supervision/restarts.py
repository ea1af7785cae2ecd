"""How long to wait before a dead process is restarted. Pure: lifetimes go in, delays come out, both in seconds."""

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
HEALTHY_LIFE = 10.0
"""A process that lived this long was healthy: the next restart is immediate again."""


class RestartDelays:
    """The first restart is immediate, then the delay doubles from 0.1 s to 5 s; a life of 10 s starts it over."""

    def __init__(self) -> None:
        self._short_lives = 0

    def next_delay(self, lived: float) -> float:
        """The delay before the restart of a process that has just ended after `lived` seconds."""
        if lived >= HEALTHY_LIFE:
            self._short_lives = 0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0.0
        doublings = min(self._short_lives - 2, 16)  # bounded, so that a process failing for days makes no huge number
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0**doublings)
