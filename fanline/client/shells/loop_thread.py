"""An asyncio event loop in a thread, for programs that have none."""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from fanline.errors import ConnectionLost

_T = TypeVar("_T")
_STOP_SECONDS = 5.0


class LoopThread:
    """It runs until `stop`. As a daemon it does not keep a program alive that forgot to stop it. Raises RuntimeError
    where there can be no thread.
    """

    def __init__(self, name: str) -> None:
        gevent = sys.modules.get("gevent.monkey")
        if gevent is not None and gevent.is_module_patched("threading"):
            raise RuntimeError(
                "this does not work under gevent's patches, as it needs a thread of its own; `fanline.Task` does, and "
                "so does `fanline.publish` over NATS"
            )
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> Future[_T]:
        """Begin this in the loop; works begin in the order of their calls. Raises RuntimeError after `stop`."""
        future = Future[_T]()
        self._loop.call_soon_threadsafe(self._begin, future, work, arguments)
        return future

    def run(self, work: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any, timeout: float | None = None) -> _T:
        """Wait for this, `timeout` seconds at most. What ends the wait, such as Ctrl-C, cancels the work."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a function for tokens or notices cannot wait for the client that calls it")
        future = Future[_T]()
        try:
            try:
                self._loop.call_soon_threadsafe(self._begin, future, work, arguments)
            except RuntimeError:
                raise _closed() from None
            return future.result(timeout)
        except CancelledError:
            raise _closed() from None
        except TimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"nothing came within {timeout:g} seconds") from None
        finally:
            future.cancel()

    def _begin(
        self, future: Future[_T], work: Callable[..., Coroutine[Any, Any, _T]], arguments: Iterable[Any]
    ) -> None:
        """In the loop's thread, where no Ctrl-C comes between the coroutine and its task."""
        task = self._loop.create_task(work(*arguments))

        def cancel(given_up: Future[_T]) -> None:
            if given_up.cancelled():
                self.call_soon(task.cancel)

        task.add_done_callback(partial(_fulfil, future))
        future.add_done_callback(cancel)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop call this. Does nothing after `stop`."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        """Cancel what is still under way, and wait for the thread's end, but not for a name server that is silent."""
        self.call_soon(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


class _Loop(asyncio.SelectorEventLoop):
    """Looks up names in a thread, and at the end of the program, when no more can be started, without."""

    async def getaddrinfo(self, *arguments: Any, **named: Any) -> Any:
        try:
            return await super().getaddrinfo(*arguments, **named)
        except RuntimeError:
            return socket.getaddrinfo(*arguments, **named)


def _fulfil(future: Future[_T], task: asyncio.Task[_T]) -> None:
    """Hand the outcome of a work to whoever waits for it."""
    if task.cancelled():
        future.cancel()
    error = None if task.cancelled() else task.exception()  # looked at, so that asyncio does not report it
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def _closed() -> ConnectionLost:
    return ConnectionLost("the client is closed", final=True)
