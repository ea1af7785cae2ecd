"""The life of a connection: which events move it, which reason stands, and who moves its deadline."""

import pytest
from trio.testing import MockClock

from fanline.engine.sending.life import LIFE, Life, LifeEvent, LifeState
from fanline.protocol.errors import CloseReason

CLOSED = CloseReason.RESTART


def lived(*events: LifeEvent) -> Life:
    """A life after these events; the server ends it with RESTART."""
    life = Life()
    for event in events:
        {LifeEvent.CLOSE: lambda: life.close(CLOSED), LifeEvent.GOODBYE: life.part, LifeEvent.LOSE: life.lose}[event]()
    return life


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ((), LifeState.OPEN, None),
        ((LifeEvent.CLOSE,), LifeState.CLOSING, CLOSED),
        ((LifeEvent.GOODBYE,), LifeState.PARTED, CloseReason.NORMAL),
        ((LifeEvent.LOSE,), LifeState.LOST, CloseReason.ABNORMAL),
        ((LifeEvent.CLOSE, LifeEvent.GOODBYE), LifeState.PARTED, CLOSED),
        ((LifeEvent.CLOSE, LifeEvent.LOSE), LifeState.LOST, CLOSED),
        ((LifeEvent.GOODBYE, LifeEvent.CLOSE), LifeState.PARTED, CloseReason.NORMAL),
        ((LifeEvent.LOSE, LifeEvent.CLOSE), LifeState.LOST, CloseReason.ABNORMAL),
        ((LifeEvent.LOSE, LifeEvent.GOODBYE), LifeState.LOST, CloseReason.ABNORMAL),
    ],
)
def test_the_first_reason_stands_and_no_life_begins_again(
    events: tuple[LifeEvent, ...], state: LifeState, reason: CloseReason | None
) -> None:
    life = lived(*events)
    assert (life.state, life.reason, life.is_open) == (state, reason, state is LifeState.OPEN)


def test_nothing_leads_back_to_open_or_on_from_lost() -> None:
    assert LifeState.OPEN not in LIFE.values()
    assert LifeState.LOST not in {state for state, _ in LIFE}


async def test_only_a_lost_connection_is_cancelled() -> None:
    assert lived(LifeEvent.LOSE).scope.cancel_called
    assert not lived(LifeEvent.CLOSE, LifeEvent.GOODBYE).scope.cancel_called


async def test_a_sign_of_life_moves_the_deadline_on_and_never_back(mock_clock: MockClock) -> None:
    life, start = Life(), mock_clock.current_time()
    life.begin(30)
    assert life.scope.deadline == start + 30
    mock_clock.jump(10)
    life.extend(5)
    assert life.scope.deadline == start + 30
    life.extend(25)
    assert life.scope.deadline == start + 35


async def test_a_connection_that_begins_or_expires_has_its_deadline_set_whatever_it_was(mock_clock: MockClock) -> None:
    life, start = Life(), mock_clock.current_time()
    life.begin(30)
    life.begin(10)
    assert life.scope.deadline == start + 10
    mock_clock.jump(3)
    life.expire()
    assert life.scope.deadline == start + 3
