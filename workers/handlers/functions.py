"""Python callables of the application: found by name, and called so that they cannot hold up the process.

A coroutine function runs in the loop, any other function in a thread. A call that is not done in time is given up
and cancelled. Its code may go on running, as a thread does. If it still runs some seconds later, it is abandoned: it
moves to a spare place, and its own place is free again. Once all spare places are taken, such calls keep their places.
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
"""Calls at a time; further ones wait."""
PARTS = 4
"""One client holds at most this share of the places, including calls that were given up and do not end."""
GRACE_SECONDS = 10.0

Function = Callable[[Any], Any]
_log = logging.getLogger("fanline.handlers")


class TooLateError(HandlerError):
    """A function was not done in time. A note says where in its code it was."""


class LoadError(Exception):
    """A function cannot be found; str() is one sentence."""


def load_function(handler: Handler) -> Function:
    """Import the function that a handler names. LoadError."""
    module_name, path = handler.module_and_function
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the application's own
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


def _is_missing(error: BaseException, module_name: str) -> bool:
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
        self.holds_place = True

    def run(self) -> Any:
        """Run in a thread. A future does not accept the StopIteration that `next` raises: the call would never end."""
        self.thread = threading.get_ident()
        try:
            return self.function(self.request)
        except StopIteration as error:
            raise RuntimeError("it raised StopIteration") from error
        finally:
            self.thread = None


class FunctionCalls:
    """The calls of one function. `spares`: how many calls may be abandoned that still run `grace` seconds after they
    were given up; `on_stuck`: called when such calls hold all places, spare ones included, so that no call can begin.
    """

    def __init__(
        self,
        seconds: float,
        on_stuck: Callable[[], None],
        *,
        places: int = PLACES,
        spares: int = 0,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._on_stuck = on_stuck
        self._most = places
        self._places = asyncio.Semaphore(places)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # held by calls alone
        self._spares = spares
        self._grace = grace
        self._stuck: set[_Call] = set()
        self._threads = ThreadPoolExecutor(places + spares, thread_name_prefix="handler")

    @property
    def stuck(self) -> int:
        """Calls that were given up and do not end."""
        return len(self._stuck)

    async def call(self, function: Function, request: Any, client: str | None = None) -> Any:
        """What the function returns. HandlerError if there is no place in time, TooLateError if it is not done in time;
        whatever the function raises. `client`: on whose behalf it is called; each holds only a part of the places.
        """
        ends = asyncio.get_running_loop().time() + self._seconds
        turn = self._turn_of(client)
        await self._enter(turn, ends)
        call = _Call(function, request)
        work = asyncio.ensure_future(self._run(call))
        work.add_done_callback(partial(self._ended, call, turn))
        done, _ = await asyncio.wait([work], timeout=ends - asyncio.get_running_loop().time())
        if not done:
            error = TooLateError(f"it was not done within {self._seconds:g} s")
            error.add_note(f"It was here:\n{stack_of(work, call.thread)}")
            call.given_up = True
            work.cancel()
            asyncio.get_running_loop().call_later(self._grace, self._look_again, call, work)
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

    def _look_again(self, call: _Call, work: asyncio.Future[Any]) -> None:
        if work.done():
            return
        self._stuck.add(call)
        self._use_spares()
        if len(self._stuck) >= self._most + self._spares:
            self._on_stuck()

    def _use_spares(self) -> None:
        """Free the places of calls that do not end, as long as there are spare ones for them."""
        held = [call for call in self._stuck if call.holds_place]
        spare = self._spares - (len(self._stuck) - len(held))
        for call in held[:spare]:
            call.holds_place = False
            self._places.release()

    def _ended(self, call: _Call, turn: asyncio.Semaphore, work: asyncio.Future[Any]) -> None:
        self._stuck.discard(call)
        if call.holds_place:
            self._places.release()
        self._use_spares()
        turn.release()
        if not work.cancelled():
            work.exception()  # retrieved, even if its caller no longer waits

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
        """A thread cannot be cancelled: this returns once the thread has ended, whatever happens meanwhile."""
        thread, cancelled = asyncio.get_running_loop().run_in_executor(self._threads, call.run), False
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        return thread.result()
