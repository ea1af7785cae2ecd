"""Tokens that expire: their clients are asked for a new one in time, and closed only after a grace period.

A client that has presented no token yet is in the same agenda: it has until `expires`, and no grace. An entry of the
agenda is checked when its time comes, since the session may have ended, or have a new token.
"""

import heapq
import itertools
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, NoReturn
from weakref import ReferenceType, ref

import trio

from fanline.engine.access.identity import Identity
from fanline.engine.sessions.session import Session
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason
from fanline.protocol.messages.notices import Expiring

_SLICE = 256  # sessions checked between two turns of the loop
_FEW = 1024  # entries that are kept without a look at what they are for
_LONGEST_PAUSE = 10.0  # seconds until the clock, which may be set or pass a suspend, is read again


class Step(Enum):
    ANNOUNCE = auto()
    CLOSE = auto()


class _Due(NamedTuple):
    time: float
    """Unix seconds."""
    number: int
    """Keeps two of the same time apart."""
    step: Step
    session: ReferenceType[Session]
    identity: Identity

    def awaited(self) -> Session | None:
        """The session, if this still concerns it: it has not ended, and has shown no other token."""
        session = self.session()
        return session if session is not None and session.identity is self.identity else None


def plan(identity: Identity, grace: float, now: float) -> list[tuple[float, Step]]:
    """When what is to be done with an identity, in Unix seconds; nothing for one that does not end."""
    if identity.expires == float("inf"):
        return []
    if not identity.known:
        return [(identity.expires, Step.CLOSE)]
    return [(max(now, identity.expires - grace), Step.ANNOUNCE), (identity.expires + grace, Step.CLOSE)]


class Expiry:
    """The agenda of one worker. `grace`: seconds before and after the end of a token; `clock`: Unix seconds."""

    def __init__(self, grace: float, clock: Callable[[], float] = time.time) -> None:
        self._grace = grace
        self._clock = clock
        self._agenda: list[_Due] = []
        self._numbers = itertools.count()
        self._crowded = _FEW
        """Number of entries from which on obsolete ones are dropped."""
        self._earlier = trio.Event()  # whether an entry is due before the one that was first

    def __len__(self) -> int:
        return len(self._agenda)

    def watch(self, session: Session) -> None:
        """Mind the end of a session's identity; to be called again when it has another one."""
        identity = session.identity
        for moment, step in plan(identity, self._grace, self._clock()):
            due = _Due(moment, next(self._numbers), step, ref(session), identity)
            heapq.heappush(self._agenda, due)
            if self._agenda[0] is due:
                self._earlier.set()
        if len(self._agenda) > self._crowded:
            self._drop_moot()

    async def run(self) -> NoReturn:
        """Do what is due, forever."""
        while True:
            self._earlier = trio.Event()
            for _ in range(_SLICE):
                if not self._agenda or self._agenda[0].time > self._clock():
                    break
                _perform(heapq.heappop(self._agenda))
            with trio.move_on_after(self._pause()):
                await self._earlier.wait()
            await trio.lowlevel.checkpoint()

    def _drop_moot(self) -> None:
        """Tokens may be valid for months, and a client may connect, or show a new one, many times a second."""
        self._agenda = [due for due in self._agenda if due.awaited() is not None]
        heapq.heapify(self._agenda)
        self._crowded = max(_FEW, 2 * len(self._agenda))

    def _pause(self) -> float:
        if not self._agenda:
            return float("inf")
        return min(max(0.0, self._agenda[0].time - self._clock()), _LONGEST_PAUSE)


def _perform(due: _Due) -> None:
    session = due.awaited()
    if session is None:
        return
    if due.step is Step.CLOSE:
        session.close(CloseReason.UNAUTHENTICATED)
    else:
        data = Expiring(expires=int(due.identity.expires * 1000)).fields()
        session.push(Envelope(MessageType.AUTH, data=data))
