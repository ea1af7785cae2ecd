"""Python callables of the application: found by name, and called without letting them hold up the process.

A coroutine function runs in the loop, any other function in a thread. A call that is not done in time is given up
and cancelled; what it runs may go on, as a thread does, and keeps its place until it ends. Once calls that do not end
have all places, the process is of no more use.
"""

import asyncio
import importlib
import inspect
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from fanline.protocol.handlers import Handler, HandlerError
from fanline.workers.handlers.stacks import stack_of

PLACES = 64
"""Calls at a time; those beyond wait."""
PARTS = 4
"""Of the places one client holds one part at most, also with calls that were given up and do not end."""
GRACE_SECONDS = 10.0

Function = Callable[[Any], Any]
_log = logging.getLogger("fanline.handlers")


class TooLateError(HandlerError):
    """A function was not done in time. A note says where it was then."""


class LoadError(Exception):
    """A function cannot be found; str() is one sentence."""


def load_function(handler: Handler) -> Function:
    """Import the function that a handler names. LoadError."""
    module_name, path = handler.module_and_function
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001  # the application's own
        if not _is_missing(error, module_name):
            _log.exception("cannot import %s", module_name)  # where in its code, or in what it imports, the fault is
        raise LoadError(f"cannot import {module_name} for the handler {handler.text}: {_words(error)}") from None
    for name in path.split("."):
        if not hasattr(found, name):
            raise LoadError(f"the handler {handler.text}: {module_name} has no {path}")
        found = getattr(found, name)
    if not callable(found):
        raise LoadError(f"the handler {handler.text} is no function")
    return found  # type: ignore[no-any-return]  # callable, as far as can be known


def _is_missing(error: Exception, module_name: str) -> bool:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and (module_name == missing or module_name.startswith(f"{missing}."))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Call:
    """One call of a function."""

    def __init__(self, function: Function, request: Any) -> None:
        self.function = function
        self.request = request
        self.thread: int | None = None
        """The identifier of the thread that runs it, if one does."""
        self.given_up = False

    def run(self) -> Any:
        """In a thread. No future takes a StopIteration, as `next` raises it: its call would never end."""
        self.thread = threading.get_ident()
        try:
            return self.function(self.request)
        except StopIteration as error:
            raise RuntimeError("it raised StopIteration") from error
        finally:
            self.thread = None


class FunctionCalls:
    """`on_stuck`: called when all places are held by calls that still run `grace` seconds after they were given up."""

    def __init__(
        self, seconds: float, on_stuck: Callable[[], None], *, places: int = PLACES, grace: float = GRACE_SECONDS
    ) -> None:
        self._seconds = seconds
        self._on_stuck = on_stuck
        self._most = places
        self._places = asyncio.Semaphore(places)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = (
            WeakValueDictionary()
        )  # held by calls, and nobody else
        self._grace = grace
        self._stuck: set[asyncio.Future[Any]] = set()
        self._threads = ThreadPoolExecutor(places, thread_name_prefix="handler")

    async def call(self, function: Function, request: Any, client: str | None = None) -> Any:
        """What the function returns. HandlerError if there is no place in time, TooLateError if it is not done in time;
        whatever it raises. `client`: who has it called, and holds a part of the places at most.
        """
        ends = asyncio.get_running_loop().time() + self._seconds
        turn = self._turn_of(client)
        await self._enter(turn, ends)
        call = _Call(function, request)
        work = asyncio.ensure_future(self._run(call))
        work.add_done_callback(partial(self._ended, turn))
        done, _ = await asyncio.wait([work], timeout=ends - asyncio.get_running_loop().time())
        if not done:
            error = TooLateError(f"it was not done within {self._seconds:g} s")
            error.add_note(f"It was here:\n{stack_of(work, call.thread)}")
            call.given_up = True
            self._give_up(work)
            raise error
        return work.result()

    def _turn_of(self, client: str | None) -> asyncio.Semaphore:
        if client is None:
            return asyncio.Semaphore()
        most = max(1, self._most // PARTS)
        return self._turns.setdefault(client, asyncio.Semaphore(most))

    async def _enter(self, turn: asyncio.Semaphore, ends: float) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await turn.acquire()
                try:
                    await self._places.acquire()
                except asyncio.CancelledError:
                    turn.release()
                    raise
        except TimeoutError:
            raise HandlerError("too many calls are under way") from None

    def _give_up(self, work: asyncio.Future[Any]) -> None:
        work.cancel()
        asyncio.get_running_loop().call_later(self._grace, self._look_again, work)

    def _look_again(self, work: asyncio.Future[Any]) -> None:
        if not work.done():
            self._stuck.add(work)
        if len(self._stuck) >= self._most:
            self._on_stuck()

    def _ended(self, turn: asyncio.Semaphore, work: asyncio.Future[Any]) -> None:
        self._stuck.discard(work)
        self._places.release()
        turn.release()
        if not work.cancelled():
            work.exception()  # seen, also if nobody waits for it any more

    async def _run(self, call: _Call) -> Any:
        try:
            if inspect.iscoroutinefunction(call.function):
                return await call.function(call.request)
            result = await self._in_thread(call)
            return await result if inspect.isawaitable(result) else result
        except Exception:
            raise
        except BaseException as error:  # it would end the loop, or the task that waits for the answer
            if call.given_up and isinstance(error, asyncio.CancelledError):
                raise  # our own
            raise RuntimeError(f"it raised {type(error).__name__}") from error

    async def _in_thread(self, call: _Call) -> Any:
        """A thread cannot be cancelled: this returns when it has ended, whatever happens meanwhile."""
        thread, cancelled = asyncio.get_running_loop().run_in_executor(self._threads, call.run), False
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        return thread.result()
