"""The client under Trio: does what the machine has decided, and tells it what has happened. It decides nothing."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy

import trio
import trio_websocket

from fanline.client.connection import CLOSE_SECONDS, ENDS, end_of, open_connection
from fanline.client.machine.client_machine import ClientMachine
from fanline.client.machine.commands import Command, Result
from fanline.client.machine.effects import AskToken, Connect, Disconnect, RenewToken, ShellEffect, Tell, Transmit
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.presence import PresenceRoster
from fanline.client.machine.requests import ClientRequest
from fanline.client.machine.wire import V1Dialect
from fanline.client.token_source import TokenSource
from fanline.errors import ConnectionLost, ConnectionRefused, FanlineError
from fanline.groups import only_error
from fanline.protocol.websocket.frames import Opcode


class Bell:
    """Wakes whoever waits for something to change; what, they look up themselves."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        self._waiting.unpark_all()

    async def wait(self) -> None:
        await self._waiting.park()


class TrioShell:
    """One client's. `notice` is told sentences for people."""

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        self.machine = ClientMachine(dialect, can_renew=tokens.can_change)
        self._url = url
        self._dialect = dialect
        self._tokens = tokens
        self._notice = notice
        self._changed = Bell()  # anything
        self._earlier = Bell()  # the deadline
        self._woken_at = math.inf
        self._connects, self._attempts = trio.open_memory_channel[Connect](math.inf)
        self._outgoing: trio.MemorySendChannel[bytes] | None = None  # while there is a WebSocket
        self._reading: trio.CancelScope | None = None  # while it is read
        self._attempt = trio.CancelScope()
        self._background: trio.Nursery | None = None

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """The client's background tasks around the caller's block; what the block raises leaves it unchanged."""
        alone: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._run)
                try:
                    await self._wait_ready()
                    yield
                finally:
                    self.perform(self.machine.close(trio.current_time()))
        except BaseExceptionGroup as group:
            alone = only_error(group)
            if alone is None:
                raise
        if alone is not None:
            raise alone

    async def _wait_ready(self) -> None:
        while not self.machine.ready:
            if self.machine.error is not None:
                raise _to_raise(self.machine.error)
            await self._changed.wait()

    # --- for the program ----------------------------------------------------------------------------------------

    async def request(self, command: Command[Result]) -> tuple[Result, ClientRequest]:
        """Send a command, and wait for its answer. Raises ServerError if it is refused, and what ended the client."""
        answered = Bell()
        request = ClientRequest(command.envelope, answered.ring, to_others=command.to_others)
        self.perform(self.machine.request(request, trio.current_time()))
        try:
            while not request.settled:
                await answered.wait()
        finally:
            self.machine.forget(request)
        if request.error is not None:
            raise request.error
        assert request.reply is not None
        return command.read(request.reply), request

    async def enter(self, local: LocalSubscription, bell: Bell) -> None:
        """Begin a subscription. Raises ServerError if one of its channels is refused, or what ended the client."""
        self.perform(self.machine.enter(local, trio.current_time()))
        try:
            while not local.begun:
                await bell.wait()
        except BaseException:
            self.leave(local)
            raise

    def leave(self, local: LocalSubscription) -> None:
        """End a subscription."""
        self.perform(self.machine.leave(local, trio.current_time()))

    def taken(self) -> None:
        """A message was taken from a subscription: there may be room for more."""
        self._changed.ring()

    async def view(self, roster: PresenceRoster, bell: Bell) -> None:
        """Begin to watch who is on a channel. Raises as `enter` does."""
        self.perform(self.machine.view(roster, trio.current_time()))
        while not roster.begun:
            await bell.wait()

    # --- what the machine wants ---------------------------------------------------------------------------------

    def perform(self, effects: list[ShellEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(payload) if self._outgoing is not None:
                    self._outgoing.send_nowait(payload)
                case Connect():
                    self._connects.send_nowait(effect)
                case AskToken() if self._background is not None:
                    self._background.start_soon(self._ask_token)
                case RenewToken() if self._background is not None:
                    self._background.start_soon(self._renew_token)
                case Disconnect():
                    (self._reading or self._attempt).cancel()
                case Tell(sentence):
                    self._notice(sentence)
                case _:  # what is sent when the WebSocket, or the client, has ended
                    pass
        if self.machine.error is not None:
            self._connects.close()
        if self.machine.deadline < self._woken_at:
            self._earlier.ring()
        self._changed.ring()

    async def _ask_token(self) -> None:
        try:
            token = await self._tokens.next()
        except Exception as error:  # noqa: BLE001  # whatever the program's function raises
            self.perform(self.machine.not_authorized(error, trio.current_time()))
        else:
            self.perform(self.machine.authorized(token))

    async def _renew_token(self) -> None:
        try:
            token = await self._tokens.next()
        except Exception as error:  # noqa: BLE001  # whatever the program's function raises
            self.perform(self.machine.not_renewed(error))
        else:
            self.perform(self.machine.renewed(token))

    # --- tasks --------------------------------------------------------------------------------------------------

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._background:
            self._background.start_soon(self._keep_time)
            self.perform(self.machine.start(trio.current_time()))
            task_status.started()
            async for connect in self._attempts:
                if self.machine.error is not None:
                    break
                with trio.CancelScope() as self._attempt:
                    await self._connect(connect.token)
            self._background.cancel_scope.cancel()

    async def _keep_time(self) -> None:
        while True:
            self._woken_at = self.machine.deadline
            with trio.move_on_at(self._woken_at):
                await self._earlier.wait()
            self.perform(self.machine.tick(trio.current_time()))

    async def _connect(self, token: str | None) -> None:
        """One connection, until it is lost or given up."""
        is_open = False
        try:
            async with open_connection(self._url, self._dialect.subprotocol, token) as websocket:
                is_open = True
                await self._use(websocket)
        except (ConnectionLost, ConnectionRefused) as error:
            if not is_open:
                self.perform(self.machine.lost(error, trio.current_time()))

    async def _use(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Report the end of a connection as soon as it is known: closing it may take a while."""
        async with trio.open_nursery() as nursery:
            self._outgoing, queue = trio.open_memory_channel[bytes](math.inf)
            nursery.start_soon(self._write, websocket, queue)
            try:
                with trio.CancelScope() as self._reading:
                    self.perform(self.machine.opened(websocket.subprotocol, trio.current_time()))
                    await self._read(websocket)
            except ENDS as error:
                self.perform(self.machine.lost(end_of(error), trio.current_time()))
            finally:
                self._outgoing.close()  # what is on its way is still sent
                self._outgoing = self._reading = None
                nursery.cancel_scope.deadline = trio.current_time() + CLOSE_SECONDS

    async def _read(self, websocket: trio_websocket.WebSocketConnection) -> None:
        while True:
            self.machine.reading(trio.current_time())
            message = await websocket.get_message()
            payload = message.encode() if isinstance(message, str) else message
            self.perform(self.machine.received(payload, trio.current_time()))
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


def _to_raise(error: Exception) -> Exception:
    return copy(error) if isinstance(error, FanlineError) else error  # a copy, since every raise adds to a traceback
