"""Calls functions of the program for a thread that must not wait: coroutine functions in the program's event loop, all
others in threads.
"""

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fanline.producer.waiting import EventLoop, finish, run_alone, running_loop

CALL_SECONDS = 30.0
"""Then a coroutine is cancelled. The server has given up the answer long before."""


class ProgramCalls:
    """`loop`: where coroutine functions run; None: each in a loop of its own, as in plain code."""

    def __init__(self) -> None:
        self.loop: EventLoop | None = None

    def use_running_loop(self) -> None:
        """Have coroutine functions run where the caller runs, if that is an event loop."""
        self.loop = running_loop() or self.loop

    def call(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """What it returns, or raises."""
        if self.loop is not None and inspect.iscoroutinefunction(function):
            try:
                return self.loop.run_soon(function(*arguments), CALL_SECONDS)
            except Exception as error:  # noqa: BLE001  # arguments that do not fit, a loop that has ended
                return _failed(error)
        future: Future[Any] = Future()
        try:
            threading.Thread(target=self._run, args=(future, function, arguments), daemon=True).start()
        except RuntimeError as error:  # no more threads are possible, or the program ends
            finish(future, error)
        return future

    def _run(self, future: "Future[Any]", function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            result = function(*arguments)
            finish(future, self._wait_for(result) if inspect.isawaitable(result) else result)
        except Exception as error:  # noqa: BLE001  # the program's own, for those who wait
            finish(future, error)
        except BaseException as error:  # noqa: BLE001  # it would end this thread, and nothing else
            finish(future, RuntimeError(f"it raised {type(error).__name__}"))

    def _wait_for(self, result: Any) -> Any:
        if self.loop is None:
            return run_alone(_awaited(result), CALL_SECONDS)
        return self.loop.run_soon(_awaited(result), CALL_SECONDS).result()


async def _awaited(result: Any) -> Any:
    return await result


def _failed(error: Exception) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
