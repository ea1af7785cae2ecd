"""Many small requests to the bus, a bounded number of them at a time."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from fanline.engine.bus.errors import BusError

_MAX_UNDER_WAY = 32

T = TypeVar("T")


async def for_each(request: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Await `request(item)` for every item, up to 32 at a time, in no particular order.

    After the first BusError no more are begun; it is raised when those under way have ended.
    """
    failures: list[BusError] = []
    remaining = iter(items)

    async def work() -> None:
        for item in remaining:
            if failures:
                return
            try:
                await request(item)
            except BusError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in items[:_MAX_UNDER_WAY]:
            nursery.start_soon(work)
    if failures:
        raise failures[0]
