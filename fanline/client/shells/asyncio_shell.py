"""The client under asyncio, over `websockets`."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from fanline.client.machine.wire import V1Dialect
from fanline.client.shells.asyncio_connection import close_connection, end_of, open_connection
from fanline.client.shells.shell import ClientShell
from fanline.client.token_source import TokenSource
from fanline.errors import ConnectionLost, ConnectionRefused
from fanline.protocol.websocket.frames import Opcode

_Outgoing = asyncio.Queue[bytes | None]
"""What is to be sent on one WebSocket; None: nothing follows."""


class AsyncioBell:
    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():  # it was cancelled
                    future.set_result(None)

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)


class AsyncioShell(ClientShell):
    """Background tasks are the shell's own, not those of a TaskGroup, so that a client may be entered in one task and
    left in another, as the fixtures of a test are.
    """

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        super().__init__(url, dialect, tokens, notice)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[None]] = set()  # those that we have cancelled ourselves
        self._connection: asyncio.Task[None] | None = None  # the last one's
        self._outgoing: _Outgoing | None = None  # while there is a WebSocket
        self._timer: asyncio.TimerHandle | None = None
        self._woken_at = math.inf
        self._fault: Exception | None = None

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        try:
            self.perform(self.machine.start(self.now()))
            await self._wait_ready()
            yield
        finally:
            if self._process == os.getpid():  # in a forked process there is nothing to leave
                self._check_place()
                self.perform(self.machine.close(self.now()))
                await self._end()
        if self._fault is not None:
            raise self._fault

    async def _end(self) -> None:
        """Wait for the background tasks, of which only the last connection may take a moment: the good-bye. If this
        wait is cancelled, so is that.
        """
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks - {self._connection}:
            task.cancel()
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise

    def bell(self) -> AsyncioBell:
        return AsyncioBell()

    def now(self) -> float:
        return self._loop.time()

    async def checkpoint(self) -> None:
        self._check_place()  # asyncio's iterators do not switch tasks while they have items

    def _is_own_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    # --- what the machine wants ---------------------------------------------------------------------------------

    def _transmit(self, payload: bytes) -> None:
        if self._outgoing is not None:
            self._outgoing.put_nowait(payload)

    def _connect_next(self, token: str | None) -> None:
        self._connection = self._spawn(self._connect(self._connection, token))

    def _disconnect(self) -> None:
        if self._outgoing is not None:
            self._outgoing.put_nowait(None)  # what is on its way is still sent
            self._outgoing = None
        if self._connection is not None and self._connection is not asyncio.current_task():
            self._give_up(self._connection)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.machine.error is None:
            self._spawn(work())

    def _keep_deadline(self) -> None:
        if self.machine.deadline < self._woken_at:
            if self._timer is not None:
                self._timer.cancel()
            self._woken_at = self.machine.deadline
            self._timer = self._loop.call_at(self._woken_at, self._tick)

    def _tick(self) -> None:
        self._woken_at = math.inf
        try:
            self.perform(self.machine.tick(self.now()))
        except Exception as error:  # noqa: BLE001  # a fault, which the loop would only log
            self._fail(error)

    # --- tasks --------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._note_cancelled(task)
        elif isinstance(error := task.exception(), Exception):
            self._fail(error)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        self._given_up.add(task)
        task.cancel()

    def _note_cancelled(self, task: asyncio.Task[None]) -> None:
        """A program that cancels all tasks of its loop cancels ours, too: then nobody would wake what waits."""
        if task not in self._given_up:
            self.perform(self.machine.close(self.now(), ConnectionLost("the program has cancelled the client's tasks")))
        self._given_up.discard(task)

    def _fail(self, fault: Exception) -> None:
        """The client cannot go on. The fault is raised where it is left."""
        self._fault = self._fault or fault
        self.perform(self.machine.close(self.now(), fault))

    async def _connect(self, last: asyncio.Task[None] | None, token: str | None) -> None:
        """One connection, until it is lost or given up."""
        if last is not None:
            await asyncio.wait([last])
        try:
            connection = await open_connection(self._url, self._dialect.subprotocol, token)
        except (ConnectionLost, ConnectionRefused) as error:
            self.perform(self.machine.lost(error, self.now()))
            return
        self._outgoing = queue = _Outgoing()
        writing = self._spawn(self._write(connection, queue))
        try:
            self.perform(self.machine.opened(connection.subprotocol, self.now()))
            await self._read(connection, queue)
        except ConnectionClosed as error:
            if self._outgoing is queue:
                self.perform(self.machine.lost(end_of(error), self.now()))
        finally:
            if self._outgoing is queue:
                self._outgoing = None
            queue.put_nowait(None)
            self._given_up.add(writing)
            await close_connection(connection, writing)

    async def _read(self, connection: ClientConnection, queue: _Outgoing) -> None:
        while self._outgoing is queue:
            self._listen()
            payload = await connection.recv(decode=False)
            self.perform(self.machine.received(payload, self.now()))
            while self.machine.holds_back and self._outgoing is queue:
                await self._changed.wait()

    async def _write(self, connection: ClientConnection, queue: _Outgoing) -> None:
        with suppress(ConnectionClosed):  # the reader meets the same end and knows the reason
            while (payload := await queue.get()) is not None:
                await connection.send(payload.decode() if self._dialect.opcode is Opcode.TEXT else payload)
