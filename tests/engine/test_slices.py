"""Long work is cut into slices, and of many tasks with long work one gets its turn in each pass of the loop."""

from collections.abc import Iterator

import trio
from trio.testing import MockClock

from fanline.engine.slices import SLICE_SECONDS, Turns


def work(clock: MockClock, steps: int, seconds: float) -> Iterator[bytes]:
    """Steps that take this long each."""
    for _ in range(steps):
        clock.jump(seconds)
        yield b"x" * 10


async def test_a_turn_ends_after_a_slice(mock_clock: MockClock) -> None:
    turns, steps = Turns(), work(mock_clock, 5, SLICE_SECONDS * 0.6)
    assert [len(await turns.some(steps)) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_turn_ends_with_the_result_that_is_enough(mock_clock: MockClock) -> None:
    turns, steps = Turns(), work(mock_clock, 5, 0)
    assert [len(await turns.some(steps, 15, len)) for _ in range(4)] == [2, 2, 1, 0]


async def test_all_results_come_in_their_order() -> None:
    assert await Turns().all(iter(range(1000))) == list(range(1000))


async def test_many_tasks_with_long_work_hold_up_the_loop_no_longer_than_one(mock_clock: MockClock) -> None:
    turns, longest, order = Turns(), 0.0, list[int]()

    async def long_work(number: int) -> None:
        steps = work(mock_clock, 10, SLICE_SECONDS)
        while await turns.some(steps):
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(long_work, number)
        while len(nursery.child_tasks) > 0:
            began = trio.current_time()
            await trio.lowlevel.checkpoint()
            longest = max(longest, trio.current_time() - began)
    assert longest < 2.5 * SLICE_SECONDS  # in between may be the end of one pass and the beginning of the next
    assert all(sorted(order[first : first + 20]) == list(range(20)) for first in range(0, 200, 20)), "not by turns"
