"""What has become of the workers, from one look at the list of live ones to the next. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from fanline.engine.cluster.members import Member

RECENT_SECONDS = 60.0
"""A worker that was started longer ago is no news to a process that sees it for the first time."""
_Slot = tuple[str, str]


class ServerChange(StrEnum):
    """What happens to a server: `event` of the data on SYSTEM."""

    DRAINING = "draining"
    WORKER_DIED = "worker_died"
    WORKER_RESTARTED = "worker_restarted"
    WORKER_RETURNED = "worker_returned"
    NATS_LOST = "nats_lost"


class WorkerChange(NamedTuple):
    """Something that has happened to a worker."""

    event: ServerChange
    member: Member
    expected: bool
    """Whether a worker had been told to end."""


class WorkerNews:
    """Takes one look after the other. A slot of a server is what lives on, whichever process is in it."""

    def __init__(self) -> None:
        self._current: dict[_Slot, tuple[str, Member]] = {}
        self._drained: set[str] = set()
        self._empty: dict[_Slot, str] = {}
        """Slots whose worker has gone -> that worker."""

    def drains(self, worker: str) -> None:
        """A worker, by its id, has been told to end."""
        self._drained.add(worker)

    def look(self, live: Mapping[str, Member], now: float) -> list[WorkerChange]:
        """What has happened since the last look. A worker that has ended may stand on the list for some seconds.

        `now`: Unix seconds.
        """
        before, self._current = self._current, _newest(live)
        changes = [change for slot in before | self._current if (change := self._change(slot, before, now)) is not None]
        self._drained &= {worker for worker, _ in self._current.values()}
        return changes

    def _change(self, slot: _Slot, before: Mapping[_Slot, tuple[str, Member]], now: float) -> WorkerChange | None:
        old, new = before.get(slot), self._current.get(slot)
        if new is None:
            return None if old is None else self._gone(slot, *old)
        worker, member = new
        last = self._empty.pop(slot, None) if old is None else old[0]
        if old is not None and last == worker:
            return None
        if last == worker:
            return WorkerChange(ServerChange.WORKER_RETURNED, member, expected=False)
        if last is None and not _died_lately(member, now):
            return None
        return WorkerChange(ServerChange.WORKER_RESTARTED, member, expected=not member.died)

    def _gone(self, slot: _Slot, worker: str, member: Member) -> WorkerChange | None:
        self._empty[slot] = worker
        return None if worker in self._drained else WorkerChange(ServerChange.WORKER_DIED, member, expected=False)


def _died_lately(member: Member, now: float) -> bool:
    """Whether a worker that was seen for the first time replaces one that has died: this process may have been started
    since, and so may all others that could tell.
    """
    return bool(member.died) and now - member.started / 1000 < RECENT_SECONDS


def _newest(live: Mapping[str, Member]) -> dict[_Slot, tuple[str, Member]]:
    """Slot -> the worker that was started last in it."""
    ordered = sorted(live.items(), key=lambda item: item[1].started)
    return {(member.server or member.host, member.name): (worker, member) for worker, member in ordered}
