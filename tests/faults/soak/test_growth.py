"""A soak notices what grows, and nothing else."""

import pytest

from tests.faults.soak.growth import Change, Sample, calmest, changes


def samples(values: list[float], life: int = 1) -> list[Sample]:
    return [Sample(life, {"memory": value}) for value in values]


def change(found: list[Sample]) -> Change:
    (only,) = changes("worker", found, frozenset(["memory"]))
    return only


def test_growth_during_the_warm_up_does_not_count() -> None:
    found = change(samples([10, 60, 100, *[101] * 12]))
    assert (found.begin, found.end, found.grown) == (101, 101, False)


@pytest.mark.parametrize(("each", "grown"), [(0.1, False), (0.5, True), (-0.5, False)])
def test_what_grows_by_more_than_two_percent_is_reported(each: float, grown: bool) -> None:
    assert change(samples([100 + each * number for number in range(20)])).grown is grown


def test_one_odd_sample_decides_nothing() -> None:
    values = [100.0] * 20
    values[-2] = 500
    assert not change(samples(values)).grown


def test_what_was_not_there_at_first_has_grown() -> None:
    assert change(samples([0.0] * 10 + [1.0] * 10)).grown


def test_a_measure_that_is_only_shown_has_not_grown() -> None:
    (found,) = changes("worker", samples([1.0] * 10 + [2.0] * 10), frozenset())
    assert not found.grown


@pytest.mark.parametrize(("last", "grown"), [([50, 90, 100], False), ([50, 99, 110], True)])
def test_of_a_slot_that_is_killed_workers_of_the_same_age_are_compared(last: list[float], grown: bool) -> None:
    first, second = samples([10, 20, 30], life=1), samples([50, 90, 100], life=2)
    unfinished = samples([50], life=4)
    assert change([*first, *second, *samples(last, life=3), *unfinished]).grown is grown


def test_a_worker_that_was_replaced_once_is_compared_with_itself() -> None:
    assert change([*samples([10, 20], life=1), *samples([50, 50, 60, 60], life=2)]).grown


@pytest.mark.parametrize("count", range(4, 12))
def test_the_two_windows_never_overlap(count: int) -> None:
    assert change(samples([100.0 + 10 * number for number in range(count)])).grown


def test_the_lowest_of_some_readings_counts() -> None:
    assert calmest([{"a": 3.0, "b": 1.0, "gone": 1.0}, {"a": 2.0, "b": 5.0}]) == {"a": 2.0, "b": 1.0}
