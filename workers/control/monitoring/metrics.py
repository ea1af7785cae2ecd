"""Named values about the cluster, for rules and records. Pure.

The names are those of the counters of workers, some of them under the names of the existing systems, and some that are
made of several. docs/reference/monitor.md lists them; a test compares.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from fanline.engine.counters import Counters
from fanline.protocol.management.minutes import MinuteRecord

GAUGES = frozenset(("connections", "channels"))
"""The counters that are gauges."""
COUNTED = tuple(each.name for each in msgspec.structs.fields(Counters) if each.name not in GAUGES)
"""Those that only grow."""
ALIASES = {"messages_sent": "deliveries", "messages_received": "commands", "connects": "opened"}
ABNORMAL = ("slow_closed", "silent_closed", "broken_closed", "flooding_closed", "too_big_closed")
"""Counters of connections that ended abnormally."""
_LEAST_COMMANDS = 100  # in a minute, before a share of them says anything
NOW = ("connections", "online_users", "active_channels", "active_sessions")
"""How much there is now."""
MADE = (
    *("disconnections_per_minute", "abnormal_disconnections_per_minute", "error_percent", "flush_seconds"),
    *("workers_missing", "health_round_trip", "health_failures"),
)
"""Those that are made of several."""
METRICS = (*NOW, *(f"{name}_per_minute" for name in (*ALIASES, *COUNTED)), *MADE)
"""All that a rule may name."""
OVER_A_MINUTE = frozenset(
    name for name in METRICS if name.endswith("_per_minute") or name in ("error_percent", "flush_seconds")
)
"""Those that say what has happened in the last minute."""


class RoundTrips(NamedTuple):
    """The results of the control processes' canaries, each on its own server."""

    round_trip: float | None
    """The longest, in seconds; None if none came back."""
    failures: int
    """Servers on which it did not come back."""


def counts_of(record: MinuteRecord) -> dict[str, int]:
    """The counts, under all names."""
    counters = record.counters
    closed = counters.get("opened", 0) - record.gained
    abnormal = sum(counters.get(name, 0) for name in ABNORMAL)
    renamed = {name: counters.get(source, 0) for name, source in ALIASES.items()}
    return {**counters, **renamed, "disconnections": max(0, closed), "abnormal_disconnections": abnormal}


def metrics_of(minute: MinuteRecord, now: MinuteRecord) -> dict[str, float]:
    """Name -> value, of those that are known. `minute`: the last sixty seconds; `now`: the newest part of them."""
    counts = counts_of(minute)
    values: dict[str, float] = {f"{name}_per_minute": float(counts.get(name, 0)) for name in (*ALIASES, *COUNTED)}
    for name in ("disconnections", "abnormal_disconnections"):
        values[f"{name}_per_minute"] = float(counts[name])
    values |= {name: float(getattr(now, name)) for name in NOW}
    values["workers_missing"] = float(now.missing)
    values["health_failures"] = float(now.health_failures)
    if now.health_round_trip is not None:
        values["health_round_trip"] = now.health_round_trip
    if (commands := counts["messages_received"]) >= _LEAST_COMMANDS:
        values["error_percent"] = 100 * counts.get("errors", 0) / commands
    if flushes := counts.get("flushes_timed", 0):
        values["flush_seconds"] = counts.get("flush_microseconds", 0) / flushes / 1e6
    return values


def worst(tried: Iterable[float | None]) -> RoundTrips:
    """Of several servers."""
    found = list(tried)
    times = [each for each in found if each is not None]
    return RoundTrips(max(times, default=None), len(found) - len(times))


def nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    """The values that are worth storing."""
    return {name: count for name, count in counts.items() if count}
