"""The agenda of tokens that end: it keeps nothing of what has ended already, and follows a clock that is set."""

from typing import cast

import pytest
import trio
import trio.testing

from fanline.engine.access.identity import Identity
from fanline.engine.sessions.identity import expiry
from fanline.engine.sessions.identity.expiry import Expiry
from fanline.engine.sessions.session import Session
from fanline.protocol.auth.rights import Grants
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import CloseReason


class Watched:
    """What the agenda knows of a session."""

    def __init__(self, expires: float) -> None:
        self.identity = Identity(user="anna", grants=Grants(), expires=expires)
        self.closed = trio.Event()

    def push(self, envelope: Envelope) -> None:
        pass

    def close(self, reason: CloseReason) -> None:
        self.closed.set()


def watch(agenda: Expiry, session: Watched) -> None:
    agenda.watch(cast("Session", session))


def test_a_client_that_shows_tokens_without_end_costs_no_memory() -> None:
    agenda, session = Expiry(30.0, lambda: 0.0), Watched(3600.0)
    for _ in range(20_000):
        session.identity = Identity(user="anna", grants=Grants(), expires=3600.0)
        watch(agenda, session)
    assert len(agenda) < 3000


def test_clients_that_come_and_go_cost_no_memory_and_those_that_stay_are_kept() -> None:
    agenda, stays = Expiry(30.0, lambda: 0.0), [Watched(3600.0) for _ in range(2000)]
    for session in stays:
        watch(agenda, session)
    for _ in range(20_000):
        watch(agenda, Watched(7200.0))
    assert 2 * len(stays) <= len(agenda) < 5 * len(stays)


async def test_a_token_ends_in_time_after_the_clock_was_set_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_LONGEST_PAUSE", 0.05)
    now = [0.0]
    agenda, session = Expiry(30.0, lambda: now[0]), Watched(3600.0)
    watch(agenda, session)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agenda.run)
            await trio.testing.wait_all_tasks_blocked()
            now[0] = 3630.0
            await session.closed.wait()
            nursery.cancel_scope.cancel()
