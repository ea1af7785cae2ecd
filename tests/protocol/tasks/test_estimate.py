"""Rate and ETA: unknown rather than wrong, and an ETA on display never rises."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.tasks.estimate import LONGEST, WARM_UP, Estimate, seconds_left

GOAL = 100.0


def run(estimate: Estimate, progress: list[tuple[float, int]], goal: float | None = GOAL) -> Estimate:
    for value, time in progress:
        estimate = estimate.advance(value, goal, time)
    return estimate


def steady(speed: float, seconds: int, every_ms: int = 100, begun: int = 0) -> list[tuple[float, int]]:
    return [(speed * ms / 1000, begun + ms) for ms in range(0, seconds * 1000 + 1, every_ms)]


@pytest.mark.parametrize("every_ms", [1, 100, 1000, 20_000])
@pytest.mark.parametrize("speed", [0.01, 0.5, 1.0])
def test_constant_speed_gives_its_rate_and_the_time_left(speed: float, every_ms: int) -> None:
    estimate = run(Estimate(), steady(speed, 60, every_ms))
    assert estimate.rate == pytest.approx(speed, rel=0.03)
    assert estimate.eta == pytest.approx((GOAL - 60 * speed) / speed, rel=0.03)


def test_the_rate_is_smoothed_and_follows() -> None:
    slow = run(Estimate(), steady(1.0, 30))
    jump = slow.advance(slow.value + 1, GOAL, 30_100)  # ten times as fast for a tenth of a second
    assert slow.rate is not None
    assert jump.rate is not None
    assert slow.rate < jump.rate < 1.2 * slow.rate
    faster = run(jump, [(31 + 0.2 * step, 30_100 + 100 * step) for step in range(1, 300)])
    assert faster.rate == pytest.approx(2.0, rel=0.1)


def test_nothing_is_known_before_the_warm_up() -> None:
    early = run(Estimate(), [(0, 0), (5, 500), (9, int(WARM_UP * 1000) - 1)])
    assert (early.rate, early.eta) == (None, None)
    assert early.advance(10, GOAL, int(WARM_UP * 1000)).eta is not None


def test_without_progress_there_is_no_rate() -> None:
    assert run(Estimate(), [(0, 0), (0, 5000), (0, 9000)]).rate is None


def test_without_a_goal_there_is_a_rate_and_no_eta() -> None:
    estimate = run(Estimate(), steady(3.0, 5), None)
    assert estimate.rate == pytest.approx(3.0, rel=0.01)
    assert estimate.eta is None


def test_an_eta_of_more_than_a_year_is_unknown() -> None:
    assert run(Estimate(), steady(1.0, 5), 5 + 0.99 * LONGEST).eta == pytest.approx(0.99 * LONGEST, rel=0.01)
    assert run(Estimate(), steady(1.0, 5), 5 + 1.01 * LONGEST).eta is None


def test_progress_that_goes_back_starts_the_estimate_over() -> None:
    assert run(Estimate(), steady(1.0, 30)).advance(2, GOAL, 31_000) == Estimate(value=2, time=31_000, begun=31_000)


def test_progress_within_one_millisecond_or_after_a_clock_was_set_back_counts_with_the_next() -> None:
    plain = run(Estimate(), [(0, 0), (10, 2000), (20, 4000)])
    assert run(Estimate(), [(0, 0), (10, 2000), (15, 2000), (16, 1000), (20, 4000)]) == plain


def test_a_higher_estimate_takes_effect_once_the_shown_one_has_run_out() -> None:
    shown = run(Estimate(), steady(10.0, 5))
    assert shown.eta == pytest.approx(5, rel=0.01)
    assert shown.time is not None
    slower = shown.advance(shown.value + 0.1, GOAL, shown.time + 2000)
    assert slower.eta == pytest.approx(3, rel=0.01)
    out = slower.advance(slower.value + 0.1, GOAL, shown.time + 6000)
    assert out.eta is None
    assert (out.advance(out.value + 0.1, GOAL, shown.time + 7000).eta or 0) > 5


amounts = st.floats(0, 100) | st.sampled_from([0, 5e-324, 1e-300, 1e-9, 1e300])
spans = st.integers(-2000, 30_000) | st.sampled_from([0, 1, 2**62])


@given(st.lists(st.tuples(amounts, spans), max_size=40), st.none() | st.sampled_from([0.0, 5e-324, 100.0, 1e300]))
def test_whatever_comes_rate_and_eta_are_numbers_or_unknown(steps: list[tuple[float, int]], goal: float | None) -> None:
    estimate, time = Estimate(), 1_000_000
    for value, span in steps:
        time = max(0, time + span)
        estimate = estimate.advance(value, goal, time)
        assert estimate.rate is None or (estimate.rate > 0 and math.isfinite(estimate.rate))
        assert estimate.eta is None or 0 <= estimate.eta <= LONGEST
        assert Estimate(*msgspec.json.decode(msgspec.json.encode(estimate))) == estimate


@given(st.lists(st.tuples(st.floats(-1, 20), st.integers(0, 5000), st.integers(-500, 0)), max_size=40))
def test_the_shown_seconds_never_rise_between_two_unknowns(steps: list[tuple[float, int, int]]) -> None:
    """Checked before and after each progress, whose clock may be late or go back."""
    estimate, value, now, shown = Estimate(), 0.0, 1_000_000, None
    for gain, passed, late in steps:
        value, now = max(0.0, value + gain), now + passed
        for looked_at in (estimate, estimate.advance(value, GOAL, now + late)):
            left = seconds_left(looked_at.eta, looked_at.time, now)
            assert left is None or shown is None or left <= shown + 1e-6
            estimate, shown = looked_at, left


def test_the_shown_eta_counts_down_to_zero() -> None:
    assert [seconds_left(5.0, 1000, now) for now in (0, 1000, 2500, 6000, 60_000)] == [5, 5, 3.5, 0, 0]
    assert seconds_left(None, 1000, 2000) is None
    assert seconds_left(5.0, None, 2000) is None
