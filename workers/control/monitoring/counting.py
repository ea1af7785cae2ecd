"""Counts since the last look, from counters that start at zero with each worker. Pure."""

import math
from collections import deque
from collections.abc import Sequence

import msgspec

from fanline.engine.counters import Counters
from fanline.engine.management.statistics import WorkerStatistics
from fanline.engine.presence.online import count_users
from fanline.protocol.management.minutes import MinuteRecord, merged
from fanline.workers.control.monitoring.metrics import COUNTED, RoundTrips, nonzero

WINDOW_SECONDS = 60.0
_EARLY_SECONDS = 1.0  # by which a look may be
_Worker = tuple[str, str, int, int]
_FORGET_SECONDS = 600.0  # after which a worker that was not heard of will not be


class Counting:
    """Takes one look after the other."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last = 0.0
        self._known: dict[_Worker, tuple[Counters, float]] = {}

    def take(self, told: Sequence[WorkerStatistics], missing: int, health: RoundTrips, now: float) -> MinuteRecord:
        """The counts since the last look; at the first look, only the present amounts. `now`: Unix seconds."""
        grown: dict[str, int] = {}
        gained = 0
        for worker in told:
            before = self._before(worker, now)
            gained += worker.counters.connections - before.connections
            for name in COUNTED:
                grown[name] = grown.get(name, 0) + getattr(worker.counters, name) - getattr(before, name)
        seconds = 0.0 if self._begun is None else now - self._last
        if self._begun is None:
            self._begun = now
        self._last = now
        self._known = {key: each for key, each in self._known.items() if now - each[1] < _FORGET_SECONDS}
        return MinuteRecord(
            seconds=round(seconds, 3),
            counters=nonzero(grown),
            gained=gained,
            connections=sum(each.users.connections for each in told),
            online_users=count_users([each.users for each in told]),
            active_channels=count_users([each.channels for each in told]),
            active_sessions=count_users([each.sessions for each in told]),
            workers=len(told),
            missing=missing,
            health_round_trip=None if health.round_trip is None else round(health.round_trip, 6),
            health_failures=health.failures,
        )

    def _before(self, worker: WorkerStatistics, now: float) -> Counters:
        """What a worker had counted at the last look. One that was started since had counted nothing; of one that was
        only missed, what it has counted until now is not known.
        """
        key = (worker.server, worker.name, worker.pid, worker.started)
        found = self._known.get(key)
        self._known[key] = (msgspec.structs.replace(worker.counters), now)
        if found is not None:
            return found[0]
        is_new = self._begun is not None and worker.started / 1000 >= self._begun
        return Counters() if is_new else worker.counters


class Window:
    """What was counted in the last minute."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, MinuteRecord]] = deque()
        self._begun = math.inf

    def add(self, part: MinuteRecord, now: float) -> MinuteRecord:
        """The last minute, including a part that has just ended."""
        self._begun = min(self._begun, now - part.seconds)
        self._parts.append((now, part))
        while self._parts[0][0] <= now - WINDOW_SECONDS:
            self._parts.popleft()
        return merged(part for _, part in self._parts)

    def is_whole(self, now: float) -> bool:
        """Whether it has been counted for a minute; before, what was counted says at least how much it was."""
        return now - self._begun > WINDOW_SECONDS - _EARLY_SECONDS
