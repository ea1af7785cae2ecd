"""What cannot be done to a process, or read of it, from outside. Python imports this at the start of every process
whose PYTHONPATH has this folder; a server under test then has $PROBE_DIRECTORY, and files there for each process id.
"""

import os
import time
from pathlib import Path

CLOCK = "clock-{}"
"""File with the seconds by which a process's wall clock is wrong. datetime.now() goes right all the same."""
_LOOK_SECONDS = 0.1


class _WrongClock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at = 0.0
        self._seconds = 0
        self._time, self._time_ns = time.time, time.time_ns

    def time(self) -> float:
        return self._time() + self._wrong_by()

    def time_ns(self) -> int:
        return self._time_ns() + self._wrong_by() * 1_000_000_000

    def _wrong_by(self) -> int:
        if time.monotonic() >= self._looked_at + _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._seconds = int(self._path.read_text()) if self._path.exists() else 0
        return self._seconds


def _install(directory: Path) -> None:
    clock = _WrongClock(directory / CLOCK.format(os.getpid()))
    time.time, time.time_ns = clock.time, clock.time_ns


if "PROBE_DIRECTORY" in os.environ:
    _install(Path(os.environ["PROBE_DIRECTORY"]))
