"""The records of minutes: what was counted in the whole cluster, as JSON in the bucket MINUTES. Pure.

The key of a record is the number of its minute. Each observed part of a minute is added to its record, so a
record says how many seconds it covers: nothing is known of the missing ones.
"""

from collections.abc import Iterable

import msgspec


class MinuteRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A minute, or a part of one, or several."""

    seconds: float = 0.0
    """That it stands for."""
    counters: dict[str, int] = {}
    """Of all workers together: how far each has grown; without those that have not."""
    gained: int = 0
    """By how much the number of open connections has grown; negative if it has shrunk."""
    connections: int = 0
    online_users: int = 0
    active_channels: int = 0
    active_sessions: int = 0
    """The highest numbers that were seen."""
    workers: int = 0
    """The highest number of workers that have answered, ..."""
    missing: int = 0
    """... and of those that have not."""
    health_round_trip: float | None = None
    """The longest way of a message through a server and back, in seconds."""
    health_failures: int = 0
    """The highest number of servers on which it did not come back."""


def merged(records: Iterable[MinuteRecord]) -> MinuteRecord:
    """Several records as one."""
    found = list(records)
    counters: dict[str, int] = {}
    for record in found:
        for name, count in record.counters.items():
            counters[name] = counters.get(name, 0) + count
    return MinuteRecord(
        seconds=round(sum(each.seconds for each in found), 3),
        counters=counters,
        gained=sum(each.gained for each in found),
        connections=max((each.connections for each in found), default=0),
        online_users=max((each.online_users for each in found), default=0),
        active_channels=max((each.active_channels for each in found), default=0),
        active_sessions=max((each.active_sessions for each in found), default=0),
        workers=max((each.workers for each in found), default=0),
        missing=max((each.missing for each in found), default=0),
        health_round_trip=max(
            (each.health_round_trip for each in found if each.health_round_trip is not None), default=None
        ),
        health_failures=max((each.health_failures for each in found), default=0),
    )


def minute_key(minute: int) -> str:
    """The key of a minute: minutes since 1970."""
    return str(minute)
