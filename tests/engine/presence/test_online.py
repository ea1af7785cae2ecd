"""How many users the whole system has, as workers put it together."""

import pytest

from fanline.engine.presence.delta import digest
from fanline.engine.presence.online import OnlineUsers, count_users, sample


def told(first: int, last: int, most: int) -> OnlineUsers:
    return sample(last - first, 0, [digest(f"user-{number}") for number in range(first, last)], most)


def test_users_of_several_workers_are_counted_once() -> None:
    assert count_users([]) == 0
    assert count_users([told(0, 100, 100), told(50, 150, 100)]) == 150


@pytest.mark.parametrize(("first", "second"), [((0, 40_000), (20_000, 60_000)), ((0, 50_000), (50_000, 50_010))])
def test_of_very_many_users_the_number_is_estimated(first: tuple[int, int], second: tuple[int, int]) -> None:
    expected = max(second[1], first[1]) - first[0]
    workers = [told(*first, 8000), told(*second, 8000)]
    assert not workers[0].complete
    assert count_users(workers) == pytest.approx(expected, rel=0.04)
