"""How often something is worth a log line that clients, producers or a fault of ours may bring about very often."""

import math
import time
from collections.abc import Callable, Hashable


class LogPace:
    """Allows one log line about a subject in `seconds` seconds, and lines about `most` subjects in that time.

    `clock`: seconds that never go back.
    """

    def __init__(
        self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic, most: float = math.inf
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._logged: dict[Hashable, float] = {}

    def allows(self, subject: Hashable = None) -> bool:
        """Whether a line about this subject is to be written now; if so, it counts as written."""
        now = self._clock()
        if now - self._logged.get(subject, -math.inf) < self._seconds:
            return False
        self._logged = {each: at for each, at in self._logged.items() if now - at < self._seconds}
        if len(self._logged) >= self._most:
            return False
        self._logged[subject] = now
        return True
