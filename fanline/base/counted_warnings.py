"""Warnings that a program may have very often: one of them is logged at a time, and the others are counted."""

import logging
import time

_log = logging.getLogger("fanline")


class CountedWarnings:
    """Logs one warning in `seconds` seconds. `rest` says what the others are that were counted after the last one; it
    is followed by their number.
    """

    def __init__(self, seconds: float, rest: str) -> None:
        self._seconds = seconds
        self._rest = rest
        self._logged_at = float("-inf")
        self._omitted = 0

    def warn(self, text: str) -> None:
        """Log this, or count it."""
        now = time.monotonic()
        if now - self._logged_at < self._seconds:
            self._omitted += 1
            return
        more = f" ({self._omitted} more since the last warning)" if self._omitted else ""
        self._logged_at, self._omitted = now, 0
        _log.warning("%s%s", text, more)

    def finish(self) -> None:
        """No warning follows, for now, that would tell of those that were not logged."""
        omitted, self._omitted = self._omitted, 0
        if omitted:
            _log.warning("%s: %d", self._rest, omitted)
