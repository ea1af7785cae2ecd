"""The client under Trio, under asyncio and in plain code, behind the calls that it has under Trio.

A test is written for Trio, with its peers beside it. Under asyncio the client lives in a loop in another thread, in
plain code it is called from threads. What the test cancels is cancelled there, except in plain code, where the call
goes on until the client is left.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import trio

import fanline
from fanline.client.shells.loop_thread import LoopThread
from fanline.producer.waiting import wait

WORLDS = ("trio", "asyncio", "plain")
_MAKE = {"subscribe", "inbox", "task", "watch_presence"}
"""The calls that make something to be entered; all others wait."""
_END = object()


class AsyncioWorld:
    """Every call is a task of its own, in a loop in another thread."""

    name = "asyncio"

    def __init__(self) -> None:
        self.thread = LoopThread("asyncio world")

    async def enter(self, target: Any) -> Any:
        return await self.call(target.__aenter__)

    async def leave(self, target: Any) -> None:
        await self.call(target.__aexit__, None, None, None)

    async def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await wait(self.thread.submit(partial(work, **named), *arguments))

    async def next(self, target: Any) -> Any:
        return await self.call(_next_or_end, target)

    def close(self) -> None:
        self.thread.stop()


class PlainWorld:
    """Every call has a thread of its own."""

    name = "plain"

    async def enter(self, target: Any) -> Any:
        return await self.call(target.__enter__)

    async def leave(self, target: Any) -> None:
        with trio.CancelScope(shield=True):
            await self.call(target.__exit__, None, None, None)

    async def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await trio.to_thread.run_sync(partial(work, *arguments, **named), abandon_on_cancel=True)

    async def next(self, target: Any) -> Any:
        return await self.call(next, target, _END)

    def close(self) -> None:
        pass


class Carried:
    """A client, or what it has made, in another world."""

    _world: AsyncioWorld | PlainWorld
    _target: Any
    _entered: Any

    def __init__(self, world: AsyncioWorld | PlainWorld, target: Any) -> None:
        vars(self).update(_world=world, _target=target, _entered=target)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._entered, name)
        if name in _MAKE:
            return lambda *arguments, **named: Carried(self._world, value(*arguments, **named))
        return partial(self._world.call, value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._entered, name, value)

    async def __aenter__(self) -> Self:
        vars(self)["_entered"] = await self._world.enter(self._target)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._world.leave(self._target)

    def __aiter__(self) -> Self:
        iter_ = getattr(self._entered, "__iter__", None) or self._entered.__aiter__
        iter_()
        return self

    async def __anext__(self) -> Any:
        item = await self._world.next(self._entered)
        if item is _END:
            raise StopAsyncIteration
        return item


async def _next_or_end(target: Any) -> Any:
    try:
        return await anext(target)
    except StopAsyncIteration:
        return _END


def client_class(world: AsyncioWorld | PlainWorld) -> Callable[..., Any]:
    """What stands for `fanline.Client` in a test."""
    original = fanline.Client
    return lambda *arguments, **named: Carried(world, original(*arguments, **named))
