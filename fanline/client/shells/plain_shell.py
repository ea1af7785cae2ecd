"""The client in plain code: the one for asyncio, in a thread of its own."""

import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

from fanline.client.machine.commands import Command, Result
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.presence import PresenceRoster
from fanline.client.machine.requests import ClientRequest
from fanline.client.machine.wire import V1Dialect
from fanline.client.shells.asyncio_shell import AsyncioBell, AsyncioShell
from fanline.client.shells.loop_thread import LoopThread
from fanline.client.shells.shell import Bell
from fanline.client.token_source import TokenSource

_T = TypeVar("_T")


class PlainShell:
    """Every method may be called from any thread but its own. The machine and its shell are touched in the loop alone;
    the program's thread takes items out of what holds them.
    """

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        self._make = partial(AsyncioShell, url, dialect, tokens, notice)
        self._process = os.getpid()
        self._inner: AsyncioShell
        self._life: AbstractAsyncContextManager[None]
        self._thread: LoopThread

    def enter_client(self) -> None:
        """Connect. Raises ConnectionRefused or ConnectionLost."""
        self._thread = LoopThread("fanline client")
        try:
            self._thread.run(self._open)
        except BaseException:
            self._thread.stop()
            raise

    async def _open(self) -> None:
        self._inner = self._make()
        self._life = self._inner.live()
        await self._life.__aenter__()

    def leave_client(self) -> None:
        """Close, and end the thread. In a forked process neither is there."""
        if self._process != os.getpid():
            return
        try:
            self._thread.run(self._close)
        finally:
            self._thread.stop()

    async def _close(self) -> None:
        await self._life.__aexit__(None, None, None)

    @property
    def user(self) -> str | None:
        return self._inner.machine.user

    def now(self) -> float:
        return self._inner.now()

    def bell(self) -> AsyncioBell:
        return AsyncioBell()

    def request(self, command: Command[Result], timeout: float | None) -> tuple[Result, ClientRequest]:
        """As that of ClientShell. Raises TimeoutError."""
        return self._run(self._inner.request, command, timeout=timeout)

    def enter(self, local: LocalSubscription, bell: Bell, timeout: float | None) -> None:
        """As that of ClientShell. Raises TimeoutError."""
        self._run(self._inner.enter, local, bell, timeout=timeout)

    def view(self, roster: PresenceRoster, bell: Bell, timeout: float | None) -> None:
        """As that of ClientShell. Raises TimeoutError."""
        self._run(self._inner.view, roster, bell, timeout=timeout)

    def leave(self, *locals_: LocalSubscription, roster: PresenceRoster | None = None) -> None:
        """End subscriptions, and a view. Does nothing if the client has ended."""
        if self._process == os.getpid():
            self._thread.call_soon(lambda: self._leave(locals_, roster))

    def _leave(self, locals_: tuple[LocalSubscription, ...], roster: PresenceRoster | None) -> None:
        if roster is not None:
            self._inner.leave_view(roster)
        for local in locals_:
            self._inner.leave(local)

    def taken(self) -> None:
        """A message was taken from a subscription that was full."""
        self._thread.call_soon(self._inner.taken)

    def wait_for(
        self, take: Callable[[], _T | None], ready: Callable[[], bool], bell: Bell, timeout: float | None
    ) -> _T:
        """What `take` has in the end. It is tried again whenever there is something, which another thread may take
        first: that does not prolong the wait. Raises TimeoutError, and what `take` raises.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (found := take()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._run(self._wait_until, ready, bell, timeout=left)
            except TimeoutError:
                raise TimeoutError(f"nothing came within {timeout:g} seconds") from None
        return found

    async def _wait_until(self, ready: Callable[[], bool], bell: Bell) -> None:
        self._inner.taken()  # everything was
        while not ready():
            await bell.wait()

    def _run(self, work: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any, timeout: float | None) -> _T:
        if self._process != os.getpid():
            raise RuntimeError("this client was entered before the process was forked: enter another one here")
        return self._thread.run(work, *arguments, timeout=timeout)
