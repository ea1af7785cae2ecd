"""The store's clock as a worker knows it: late perhaps, never early."""

import math

import trio
from trio.testing import MockClock

from fanline.engine.cluster.store_clock import StoreClock


async def test_it_goes_on_from_where_it_was_set_and_says_when_a_time_will_come(autojump_clock: MockClock) -> None:
    clock = StoreClock()
    assert (clock.known, clock.now(), clock.moment(1)) == (False, -math.inf, math.inf)
    clock.set(1_000_000, trio.current_time())
    assert clock.known
    begin = trio.current_time()
    await trio.sleep(5)
    assert clock.now() == 1_005_000
    assert clock.moment(1_007_500) == begin + 7.5


async def test_a_time_that_was_heard_moves_it_on_and_never_back(autojump_clock: MockClock) -> None:
    clock = StoreClock()
    clock.set(1_000_000, trio.current_time())
    clock.hear(999_000)
    assert clock.now() == 1_000_000
    clock.hear(1_000_300)
    assert clock.now() == 1_000_300
    clock.set(1_000_100, trio.current_time())  # what was measured stands over what was heard
    assert clock.now() == 1_000_100
