"""Which workers have ended, so that their users are gone. Without I/O.

A worker that is no longer among the live ones is given some time: its clients may be back on another worker before
anyone is notified that they left. After that it is dead, and its late deltas are ignored, until it is live again.
"""

from collections.abc import Collection, Iterable

from fanline.engine.cluster.members import EXPIRY_SECONDS, SIGN_SECONDS
from fanline.engine.presence.attendance import LINGER_SECONDS

GRACE_SECONDS = LINGER_SECONDS - (EXPIRY_SECONDS - SIGN_SECONDS)
"""A killed worker is missed after EXPIRY_SECONDS - SIGN_SECONDS at the earliest, and the rest of the time in which its
users may come back unnoticed begins then.
"""
_FORGET_SECONDS = 60.0  # after which nothing of a dead worker is on its way any more


class Deaths:
    """Times are in seconds of any one clock."""

    def __init__(self) -> None:
        self._missed: dict[str, float] = {}  # worker -> since when
        self._dead: dict[str, float] = {}
        self._live: Collection[str] = ()

    def is_dead(self, worker: str) -> bool:
        return worker in self._dead

    def look(self, live: Collection[str], known: Iterable[str], now: float) -> tuple[list[str], bool]:
        """Which of the known workers have died since the last call, and whether others have joined or come back."""
        for worker in {*known, *self._live}:
            if worker not in live and worker not in self._dead:
                self._missed.setdefault(worker, now)
        self._missed = {worker: since for worker, since in self._missed.items() if worker not in live}
        died = [worker for worker, since in self._missed.items() if now - since >= GRACE_SECONDS]
        for worker in died:
            del self._missed[worker]
        come = any(worker not in self._live for worker in live)
        remembered = ((worker, since) for worker, since in self._dead.items() if now - since < _FORGET_SECONDS)
        self._dead = {worker: since for worker, since in remembered if worker not in live}
        self._dead |= dict.fromkeys(died, now)
        self._live = set(live)
        return died, come
