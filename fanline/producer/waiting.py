"""Waiting and cancellation, under asyncio and Trio alike: the only module of the SDK that knows asyncio.

A job without a loop imports neither of them (tests/fanline/test_public.py): both are imported where they are needed.
"""

import sys
from collections.abc import Coroutine, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import sniffio

_T = TypeVar("_T")
_CANCELLATIONS = (("asyncio.exceptions", "CancelledError"), ("trio", "Cancelled"), ("greenlet", "GreenletExit"))
"""What asyncio, Trio and gevent raise in whatever they cancel: module and name."""


class Checkpoint:
    """May be awaited, which lets other tasks run and the caller be cancelled, or ignored, which costs nothing."""

    def __await__(self) -> Generator[Any, Any, None]:
        return _checkpoint().__await__()


CHECKPOINT = Checkpoint()


class Body(Protocol):
    """The block of an `async with`, which can be cancelled from any thread."""

    def cancel_soon(self) -> None:
        """Cancel the block, from any thread. Does nothing when repeated, or when the block has already ended."""
        ...

    def leave(self, error: BaseException | None) -> bool:
        """Whether the block ended because it was cancelled here. May raise what remains of `error` without that."""
        ...


def enter_body() -> Body:
    """Call this where the block begins, in its task."""
    return _AsyncioBody() if _under_asyncio() else _TrioBody()


def finish(future: Future[_T], outcome: _T | Exception) -> bool:
    """Set the result or error of a future. Returns False if it already has one, or was cancelled."""
    try:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return False
    return True


async def wait(future: Future[_T]) -> _T:
    """The result of a future that another thread sets. Cancelling the wait cancels the future."""
    if _under_asyncio():
        import asyncio

        return await asyncio.wrap_future(future)
    import trio

    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wake(_: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future.add_done_callback(wake)
    try:
        await done.wait()
    except trio.Cancelled:
        future.cancel()
        raise
    return future.result()


async def wait_at_most(future: Future[Any], seconds: float) -> bool:
    """Whether the future was done within `seconds` seconds, with a result or an error."""
    if _under_asyncio():
        import asyncio

        waiting = asyncio.wrap_future(future)
        await asyncio.wait([waiting], timeout=seconds)
        waiting.cancel()  # it must not outlive the event loop
        return future.done() and not future.cancelled()
    import trio

    with trio.move_on_after(seconds), suppress(Exception):
        await wait(future)
    return future.done() and not future.cancelled()


class EventLoop(Protocol):
    """The event loop of a program, as other threads use it."""

    def run_soon(self, coroutine: Coroutine[Any, Any, _T], seconds: float) -> Future[_T]:
        """Have it run a coroutine. TimeoutError after `seconds` seconds, when the coroutine is cancelled; RuntimeError
        if the loop has ended.
        """
        ...


def running_loop() -> EventLoop | None:
    """The loop that runs the caller; None in plain code."""
    try:
        return _AsyncioLoop() if _under_asyncio() else _TrioLoop()
    except sniffio.AsyncLibraryNotFoundError:
        return None


def run_alone(coroutine: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """Run a coroutine in a loop of its own, of asyncio, in a thread that has none. TimeoutError."""
    import asyncio

    return asyncio.run(asyncio.wait_for(coroutine, seconds))


def is_cancellation(error: BaseException) -> bool:
    """Whether the end was requested from outside: a cancelled task, Ctrl-C, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_cancellation(inner) for inner in error.exceptions)
    return isinstance(error, KeyboardInterrupt | GeneratorExit) or any(
        (library := sys.modules.get(module)) is not None and isinstance(error, getattr(library, name))
        for module, name in _CANCELLATIONS  # a library that was never imported has raised nothing
    )


def _under_asyncio() -> bool:
    return sniffio.current_async_library() == "asyncio"


async def _checkpoint() -> None:
    if _under_asyncio():
        import asyncio

        await asyncio.sleep(0)
    else:
        import trio

        await trio.lowlevel.checkpoint()


class _TrioBody:
    def __init__(self) -> None:
        import trio

        self._run_finished = trio.RunFinishedError
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._scope.__enter__()

    def cancel_soon(self) -> None:
        with suppress(self._run_finished):
            self._token.run_sync_soon(self._scope.cancel)

    def leave(self, error: BaseException | None) -> bool:
        trace = None if error is None else error.__traceback__
        self._scope.__exit__(None if error is None else type(error), error, trace)
        return self._scope.cancelled_caught


class _AsyncioBody:
    """Cancels its task as asyncio.timeout does, so that a cancellation from outside can be told apart."""

    def __init__(self) -> None:
        import asyncio

        self._cancelled_error = asyncio.CancelledError
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("`async with Task(...)` needs an asyncio task around it")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._cancelling = task.cancelling()
        self._left = self._cancelled = False

    def cancel_soon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def leave(self, error: BaseException | None) -> bool:
        self._left = True
        if not self._cancelled:
            return False
        return self._task.uncancel() <= self._cancelling and isinstance(error, self._cancelled_error)

    def _cancel(self) -> None:
        if not self._left and not self._cancelled:
            self._cancelled = True
            self._task.cancel()


class _AsyncioLoop:
    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()

    def run_soon(self, coroutine: Coroutine[Any, Any, _T], seconds: float) -> Future[_T]:
        import asyncio

        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("the event loop of the program has ended")
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), self._loop)


class _TrioLoop:
    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()

    def run_soon(self, coroutine: Coroutine[Any, Any, _T], seconds: float) -> Future[_T]:
        import trio

        future: Future[_T] = Future()

        async def run() -> None:
            try:
                with trio.fail_after(seconds):
                    finish(future, await coroutine)
            except trio.TooSlowError:
                finish(future, TimeoutError())
            except Exception as error:  # noqa: BLE001  # the program's own, for those who wait
                finish(future, error)

        try:
            self._token.run_sync_soon(trio.lowlevel.spawn_system_task, run)
        except trio.RunFinishedError:
            coroutine.close()
            raise RuntimeError("the event loop of the program has ended") from None
        return future
