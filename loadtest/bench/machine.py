"""What Linux says about processes and the machine."""

import os
import platform
import time
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """Where and when a figure was measured."""

    cpu: str
    cores: int
    kernel: str
    python: str
    load_average: float
    """Over the minute before the bench."""


def machine() -> Machine:
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return Machine(
        cpu=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 0,
        kernel=os.uname().release,
        python=platform.python_version(),
        load_average=os.getloadavg()[0],
    )


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """CPU time of all threads of these processes, user and system (the clock of clock_getcpuclockid(3))."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def resident_kb(pids: tuple[int, ...], field: str = "VmRSS") -> int:
    """Resident memory in KiB; its peak with the field VmHWM."""
    lines = [line for pid in pids for line in _lines(f"/proc/{pid}/status") if line.startswith(f"{field}:")]
    return sum(int(line.split()[1]) for line in lines)


def children(pid: int, mark: str) -> tuple[int, ...]:
    """Live children of `pid` whose command line contains `mark`, in ascending order."""
    found = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
        if mark in Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    ]
    return tuple(sorted(found))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
