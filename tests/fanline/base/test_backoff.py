"""Full-jitter back-off."""

import random

from fanline.base.backoff import Backoff


def test_each_delay_is_uniform_below_a_limit_that_doubles_up_to_the_cap() -> None:
    limits: list[float] = []

    def highest(low: float, high: float) -> float:
        assert low == 0.0
        limits.append(high)
        return high

    backoff = Backoff(base=0.5, cap=3.0, uniform=highest)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_same_seed_gives_the_same_delays_and_they_differ_from_each_other() -> None:
    first = Backoff(uniform=random.Random(7).uniform)
    second = Backoff(uniform=random.Random(7).uniform)
    delays = [first.next_delay() for _ in range(20)]
    assert delays == [second.next_delay() for _ in range(20)]
    assert len(set(delays)) == 20
    assert all(0 <= delay <= 15 for delay in delays)


def test_reset_starts_again_and_thousands_of_failures_are_no_problem() -> None:
    backoff = Backoff(base=1.0, cap=60.0, uniform=lambda _, high: high)
    for _ in range(5000):
        last = backoff.next_delay()
    assert last == 60.0
    backoff.reset()
    assert backoff.next_delay() == 1.0
