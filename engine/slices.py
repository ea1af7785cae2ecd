"""Long work in slices, so that nothing holds up the loop of a worker."""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import trio

SLICE_SECONDS = 0.005
"""How long one piece of work may hold the loop before other tasks get their turn."""
SMALL_BYTES = 64 * 1024
"""Work on so many bytes takes a millisecond or two as a rule, and is done without waiting for a turn."""
_LOOK_BYTES = 4096  # of results between two looks at the clock

T = TypeVar("T")


class Slices:
    """`breathe`, called between the steps of long work, gives other tasks their turn every few milliseconds."""

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._end = trio.current_time() + seconds

    async def breathe(self) -> None:
        if trio.current_time() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = trio.current_time() + self._seconds


def pieces(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """`items` in lists of `most` at most."""
    rest = iter(items)
    while piece := list(islice(rest, most)):
        yield piece


Ordered = TypeVar("Ordered", bound=Any)


def lowest(found: list[Ordered], more: Iterable[Ordered], most: int) -> list[Ordered]:
    """The `most` lowest ones, in order, of those found before, which are in order, and of more: so the first of many
    are found piece by piece.
    """
    if len(found) >= most:
        more = [each for each in more if each < found[-1]]
    return sorted([*found, *more])[:most]


class Turns:
    """Long work of many tasks: one slice of one of them in each pass of the loop, in the order in which they ask.

    So a hundred tasks with long work hold up the others no longer than one does; they only take longer themselves.
    """

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def some(
        self, work: Iterator[T], most: int = sys.maxsize, size: Callable[[T], int] = lambda _: _LOOK_BYTES
    ) -> list[T]:
        """The next results of lazy work, as many as fit into a slice; [] at its end. With `size`, it ends with the
        result that makes them `most` or more together.
        """
        found, total, look_at = list[T](), 0, 0
        async with self._turn:
            end = trio.current_time() + SLICE_SECONDS
            for result in work:
                found.append(result)
                total += size(result)
                if total >= look_at:
                    if total >= most or trio.current_time() >= end:
                        break
                    look_at = min(total + _LOOK_BYTES, most)
        return found

    async def all(self, work: Iterator[T]) -> list[T]:
        """All results of lazy work."""
        found = list[T]()
        while some := await self.some(work):
            found += some
        return found
