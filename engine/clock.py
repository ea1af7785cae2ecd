"""The wall clock of the engine."""

import time


def unix_ms() -> int:
    """The present time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
