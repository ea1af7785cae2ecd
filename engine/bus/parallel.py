"""Many small requests at a time."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from fanline.engine.bus.interface import BusError

_AT_A_TIME = 32

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
