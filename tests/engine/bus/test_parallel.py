"""`for_each`: many requests, a bounded number of them at a time."""

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.parallel import for_each


async def test_every_item_is_requested_once_and_no_more_than_32_are_under_way(autojump_clock: MockClock) -> None:
    under_way = most = 0
    done: list[int] = []

    async def request(item: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1 + item % 3)
        under_way -= 1
        done.append(item)

    await for_each(request, range(100))
    assert sorted(done) == list(range(100))
    assert most == 32


async def test_after_a_failure_no_more_are_begun_and_it_is_raised_when_those_under_way_have_ended(
    autojump_clock: MockClock,
) -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def request(item: int) -> None:
        begun.append(item)
        if item == 5:
            await trio.sleep(1)
            raise BusError("the broker is away")
        await trio.sleep(2)
        ended.append(item)

    with pytest.raises(BusError, match="the broker is away"):
        await for_each(request, range(100))
    assert sorted(begun) == list(range(32))
    assert sorted(ended) == [item for item in range(32) if item != 5]
