"""Tokens that end: their clients are asked for a new one in time, and are let go only after a grace period.

A client that has shown no token yet is in the same agenda: it has until `expires`, and no grace. What the agenda holds
of a session is checked when its time comes, since the session may have ended, or have a new token.
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
from fanline.protocol.messages import Expiring

_SLICE = 256  # sessions looked at between two turns of the loop


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
        self._earlier = trio.Event()  # whether something has come before what was the first

    def watch(self, session: Session) -> None:
        """Mind the end of a session's identity; to be called again when it has another one."""
        identity = session.identity
        for moment, step in plan(identity, self._grace, self._clock()):
            due = _Due(moment, next(self._numbers), step, ref(session), identity)
            heapq.heappush(self._agenda, due)
            if self._agenda[0] is due:
                self._earlier.set()

    async def run(self) -> NoReturn:
        """Do what is due, for ever."""
        while True:
            self._earlier = trio.Event()
            for _ in range(_SLICE):
                if not self._agenda or self._agenda[0].time > self._clock():
                    break
                _perform(heapq.heappop(self._agenda))
            with trio.move_on_after(self._pause()):
                await self._earlier.wait()
            await trio.lowlevel.checkpoint()

    def _pause(self) -> float:
        return max(0.0, self._agenda[0].time - self._clock()) if self._agenda else float("inf")


def _perform(due: _Due) -> None:
    session = due.session()
    if session is None or session.identity is not due.identity:
        return  # it has ended, or has shown another token
    if due.step is Step.CLOSE:
        session.close(CloseReason.UNAUTHENTICATED)
    else:
        data = Expiring(expires=int(due.identity.expires * 1000)).fields()
        session.push(Envelope(MessageType.AUTH, data=data))
