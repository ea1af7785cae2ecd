"""The wall clock of the engine."""

import time
from datetime import datetime


def unix_ms() -> int:
    """The present time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def unix_ms_of(timestamp: str) -> int:
    """Unix milliseconds of an RFC 3339 time."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
