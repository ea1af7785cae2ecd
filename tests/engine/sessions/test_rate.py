"""What a client may send, and what follows if it sends more."""

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from fanline.engine.limits import Limit
from fanline.engine.sessions.rate import CLOSE_AFTER, Account, Rate, SlowLane, Work

RATE = Rate(messages=10.0, bytes=1000.0)


def test_a_second_of_the_rate_may_come_at_once_and_no_more_without_a_pause() -> None:
    account = Account(0.0)
    assert account.charge(RATE, Work(10, 0), 0.0).pause == 0
    pace = account.charge(RATE, Work(1, 0), 0.0)
    assert (round(pace.pause, 3), pace.first, pace.over) == (0.1, Limit.MESSAGES, False)
    assert not account.charge(RATE, Work(1, 0), 0.0).first


def test_bytes_count_as_messages_do_and_the_larger_share_counts() -> None:
    assert Account(0.0).charge(RATE, Work(1, 1000), 0.0).pause == 0
    assert round(Account(0.0).charge(RATE, Work(1, 1500), 0.0).pause, 3) == 0.5
    assert round(Account(0.0).charge(RATE, Work(13, 1200), 0.0).pause, 3) == 0.3


def test_no_pause_is_longer_than_a_second_so_that_the_connection_stays_alive() -> None:
    assert Account(0.0).charge(RATE, Work(10_000, 0), 0.0).pause == 1.0


def test_a_client_that_keeps_to_its_rate_is_never_held_back() -> None:
    account = Account(0.0)
    assert {account.charge(RATE, Work(1, 100), number / 10) for number in range(10_000)} == {(0.0, None, False, False)}


def test_a_client_that_stays_too_fast_is_over_after_a_while_and_not_before() -> None:
    account, now = Account(0.0), 0.0
    while now <= CLOSE_AFTER:
        assert not account.charge(RATE, Work(100, 0), now).over
        now += 1.0
    assert account.charge(RATE, Work(100, 0), now + 1.0).over


def test_a_client_that_slows_down_is_forgiven_and_warned_again() -> None:
    account = Account(0.0)
    assert account.charge(RATE, Work(20, 0), 0.0).first
    assert not account.charge(RATE, Work(0, 0), 100.0).first
    again = account.charge(RATE, Work(20, 0), CLOSE_AFTER + 200.0)
    assert (again.first, again.over) == (Limit.MESSAGES, False)


def test_the_work_of_reading_counts_as_messages_do() -> None:
    rate = RATE._replace(share=0.1)
    assert Account(0.0).charge(rate, Work(1, 100, seconds=0.1), 0.0).pause == 0
    pace = Account(0.0).charge(rate, Work(1, 100, seconds=0.15), 0.0)
    assert (round(pace.pause, 3), pace.first) == (0.5, Limit.WORK)


def test_large_answers_hold_a_client_back_without_a_warning_and_never_end_it() -> None:
    account, now = Account(0.0), 0.0
    assert account.charge(RATE, Work(1, 10, answered=1000), now).pause == 0
    for _ in range(100):
        pace = account.charge(RATE, Work(1, 10, answered=5000), now)
        assert (pace.pause, pace.first, pace.heavy, pace.over) == (1.0, None, True, False)
        now += 1.0


def test_a_rate_of_zero_is_no_limit() -> None:
    assert Account(0.0).charge(Rate(0.0, 0.0), Work(10**9, 10**12), 0.0).pause == 0


@given(st.lists(st.tuples(st.integers(0, 10), st.floats(0, 2)), max_size=60))
def test_whatever_a_client_sends_no_more_is_read_than_its_rate_and_a_second_at_once(
    reads: list[tuple[int, float]],
) -> None:
    account, now, taken = Account(0.0), 0.0, 0
    for messages, gap in reads:
        pace = account.charge(RATE, Work(messages, 0), now)
        taken += messages
        now += pace.pause + gap
        assert taken <= RATE.messages * (now + 1.0) + 1e-6


@pytest.mark.parametrize(("held_back", "share"), [(True, 0.005), (False, 0.05)])
async def test_messages_that_take_long_take_a_small_share_together_and_less_of_those_who_are_held_back(
    autojump_clock: MockClock, held_back: bool, share: float
) -> None:
    lane, done = SlowLane(), list[int]()

    async def flood(number: int) -> None:
        for _ in range(5):
            await lane.rest(0.01, held_back=held_back)
            done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(flood, number)
    assert round(trio.current_time()) == 20 * 5 * 0.01 / share
    assert sorted(done[:20]) == list(range(20))  # each in its turn


async def test_messages_that_take_no_time_do_not_wait_for_those_that_do(autojump_clock: MockClock) -> None:
    lane = SlowLane()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(lane.rest, 1.0, held_back=True))
        await trio.testing.wait_all_tasks_blocked()
        await lane.rest(0.001, held_back=False)
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()
