"""Much small work without being in the way of the rest of the worker."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from engine.bus import BusError

_AT_A_TIME = 32
SLICE_SECONDS = 0.005
"""How long one piece of work may hold the loop before others get their turn."""

T = TypeVar("T")


async def for_each(action: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Do it for all items, some at a time. When one fails no more are begun; its BusError is raised."""
    failures: list[BusError] = []
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            if failures:
                return
            try:
                await action(item)
            except BusError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in items[:_AT_A_TIME]:
            nursery.start_soon(work)
    if failures:
        raise failures[0]


class Slices:
    """Called between two steps of long work, it gives others their turn every few milliseconds."""

    def __init__(self) -> None:
        self._end = trio.current_time() + SLICE_SECONDS

    async def breathe(self) -> None:
        if trio.current_time() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = trio.current_time() + SLICE_SECONDS
