"""What cannot be done to a process, or read of it, from outside. Python imports this at the start of every process
whose PYTHONPATH has this folder; a server under test then has $PROBE_DIRECTORY, and files there for each process id.
"""

import gc
import os
import struct
import time
from pathlib import Path
from typing import Any

import trio

CLOCK = "clock-{}"
"""File with the seconds by which a process's wall clock is wrong. datetime.now() goes right all the same."""
TASKS = "tasks-{}"
"""File with the number of a process's Trio tasks, as COUNT."""
COUNT = struct.Struct("=q")
QUIET = "quiet"
"""While this file exists, processes collect their garbage: what is left in memory is in use."""
_LOOK_SECONDS = 0.1
_TELL_SECONDS = 0.5


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


class _TaskCount(trio.abc.Instrument):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._count = 0
        self._told_at = 0.0
        self._run = trio.run

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._count += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._count -= 1

    def after_io_wait(self, timeout: float) -> None:
        if time.monotonic() >= self._told_at + _TELL_SECONDS:
            self._told_at = time.monotonic()
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT)
            if self._path.with_name(QUIET).exists():
                gc.collect()
            os.pwrite(self._file, COUNT.pack(self._count), 0)

    def run(self, *args: Any, **options: Any) -> Any:
        """trio.run, counted."""
        return self._run(*args, **options, instruments=[self])


def _install(directory: Path) -> None:
    clock = _WrongClock(directory / CLOCK.format(os.getpid()))
    time.time, time.time_ns = clock.time, clock.time_ns
    trio.run = _TaskCount(directory / TASKS.format(os.getpid())).run  # type: ignore[assignment]  # it has more names


if "PROBE_DIRECTORY" in os.environ:
    _install(Path(os.environ["PROBE_DIRECTORY"]))
