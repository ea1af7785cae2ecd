"""The client under Trio, over trio-websocket."""

import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

from fanline.base.groups import first_error, only_error
from fanline.client.machine.wire import V1Dialect
from fanline.client.shells import ends
from fanline.client.shells.shell import ClientShell
from fanline.client.shells.trio_connection import ENDS, end_of, open_connection
from fanline.client.token_source import TokenSource
from fanline.errors import ConnectionLost, ConnectionRefused
from fanline.protocol.websocket.frames import Opcode


class TrioBell:
    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        self._waiting.unpark_all()

    async def wait(self) -> None:
        await self._waiting.park()


class TrioShell(ClientShell):
    """Background tasks live in a nursery around the program's block."""

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        super().__init__(url, dialect, tokens, notice)
        self._token = trio.lowlevel.current_trio_token()
        self._earlier = TrioBell()  # the deadline
        self._woken_at = math.inf
        self._connects, self._attempts = trio.open_memory_channel[str | None](math.inf)
        self._outgoing: trio.MemorySendChannel[bytes] | None = None  # while there is a WebSocket
        self._reading: trio.CancelScope | None = None  # while it is read
        self._attempt = trio.CancelScope()
        self._background: trio.Nursery | None = None

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        alone: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._run)
                try:
                    await self._wait_ready()
                    yield
                finally:
                    self.perform(self.machine.close(self.now()))
        except BaseExceptionGroup as group:
            alone = only_error(group)
            if alone is None:
                raise
        if alone is not None:
            raise alone

    def bell(self) -> TrioBell:
        return TrioBell()

    def now(self) -> float:
        return trio.current_time()

    async def checkpoint(self) -> None:
        self._check_place()
        await trio.lowlevel.checkpoint()

    def _is_own_loop(self) -> bool:
        return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token

    # --- what the machine wants ---------------------------------------------------------------------------------

    def _transmit(self, payload: bytes) -> None:
        if self._outgoing is not None:
            self._outgoing.send_nowait(payload)

    def _connect_next(self, token: str | None) -> None:
        self._connects.send_nowait(token)

    def _disconnect(self) -> None:
        (self._reading or self._attempt).cancel()

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._background is not None:
            self._background.start_soon(work)

    def _keep_deadline(self) -> None:
        if self.machine.error is not None:
            self._connects.close()
        if self.machine.deadline < self._woken_at:
            self._earlier.ring()

    # --- tasks --------------------------------------------------------------------------------------------------

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Raises a fault as it is."""
        try:
            await self._run_background(task_status)
        except BaseExceptionGroup as group:
            fault = first_error(group)
        else:
            return
        raise fault

    async def _run_background(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._background:
            self._background.start_soon(self._keep_time)
            self.perform(self.machine.start(self.now()))
            task_status.started()
            async for token in self._attempts:
                if self.machine.error is not None:
                    break
                with trio.CancelScope() as self._attempt:
                    await self._connect(token)
            self._background.cancel_scope.cancel()

    async def _keep_time(self) -> None:
        while True:
            self._woken_at = self.machine.deadline
            with trio.move_on_at(self._woken_at):
                await self._earlier.wait()
            self.perform(self.machine.tick(self.now()))

    async def _connect(self, token: str | None) -> None:
        """One connection, until it is lost or given up."""
        is_open = False
        try:
            async with open_connection(self._url, self._dialect.subprotocol, token) as websocket:
                is_open = True
                await self._use(websocket)
        except (ConnectionLost, ConnectionRefused) as error:
            if not is_open:
                self.perform(self.machine.lost(error, self.now()))

    async def _use(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Report the end of a connection as soon as it is known: closing it may take a while."""
        async with trio.open_nursery() as nursery:
            self._outgoing, queue = trio.open_memory_channel[bytes](math.inf)
            nursery.start_soon(self._write, websocket, queue)
            try:
                with trio.CancelScope() as self._reading:
                    self.perform(self.machine.opened(websocket.subprotocol, self.now()))
                    await self._read(websocket)
            except ENDS as error:
                self.perform(self.machine.lost(end_of(error), self.now()))
            finally:
                self._outgoing.close()  # what is on its way is still sent
                self._outgoing = self._reading = None
                nursery.cancel_scope.deadline = self.now() + ends.CLOSE_SECONDS

    async def _read(self, websocket: trio_websocket.WebSocketConnection) -> None:
        while True:
            self._listen()
            message = await websocket.get_message()
            payload = message.encode() if isinstance(message, str) else message
            self.perform(self.machine.received(payload, self.now()))
            while self.machine.holds_back:
                await self._changed.wait()

    async def _write(
        self, websocket: trio_websocket.WebSocketConnection, queue: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        async for payload in queue:
            try:
                await websocket.send_message(payload.decode() if self._dialect.opcode is Opcode.TEXT else payload)
            except ENDS:
                return  # the reader meets the same end and knows the reason
