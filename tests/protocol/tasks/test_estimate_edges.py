"""The estimate at its edges: a pause, no gain, the goal, the year."""

import pytest
from msgspec.structs import replace

from fanline.protocol.tasks.estimate import LONGEST, Estimate


def run(*progress: tuple[float, int], goal: float = 100.0) -> Estimate:
    estimate = Estimate()
    for value, time in progress:
        estimate = estimate.advance(value, goal, time)
    return estimate


def test_two_reports_give_the_rate_exactly() -> None:
    assert run((0, 0), (10, 2000)).rate == pytest.approx(5.0, rel=1e-12)


def test_a_report_without_gain_lowers_the_rate_and_starts_nothing_over() -> None:
    before, after = run((0, 0), (10, 2000)), run((0, 0), (10, 2000), (10, 3000))
    assert before.rate is not None
    assert after.rate is not None
    assert 0 < after.rate < before.rate


def test_the_warm_up_begins_with_the_first_progress_however_late_that_is() -> None:
    assert run((0, 1_000_000), (5, 1_000_999)).rate is None
    assert run((0, 1_000_000), (5, 1_001_000)).rate == pytest.approx(5.0)


def test_at_the_goal_nothing_is_left_and_that_stays() -> None:
    assert run((0, 0), (100, 2000)).eta == 0
    assert run((0, 0), (100, 2000), (100, 3000)).eta == 0


def test_an_eta_of_exactly_a_year_is_known() -> None:
    assert run((0, 0), (2, 2000), goal=LONGEST + 2).eta == LONGEST


def test_a_pause_counts_neither_for_the_rate_nor_for_the_warm_up() -> None:
    early = run((0, 1000), (5, 1500))
    assert early.resume(61_500) == replace(early, time=61_500, begun=61_000)
    assert early.resume(61_500).advance(9, 100.0, 61_999).rate is None
    assert early.resume(61_500).advance(10, 100.0, 62_000).rate == pytest.approx(10.0)


@pytest.mark.parametrize("time", [1499, 1500])
def test_a_pause_that_ends_before_it_began_changes_nothing(time: int) -> None:
    early = run((0, 1000), (5, 1500))
    assert early.resume(time) == early


def test_before_any_progress_there_is_nothing_to_resume() -> None:
    assert Estimate().resume(5000) == Estimate()
