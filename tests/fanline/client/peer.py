"""A server that says what a test wants: trio-websocket on loopback, one handler call per connection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
import trio_websocket

from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.messages.answers import Authenticated, ErrorData
from fanline.protocol.messages.commands import Authenticate
from fanline.protocol.messages.control_data import read
from fanline.protocol.messages.notices import Limits, Welcome


class Talk:
    """One connection, seen from the server; JSON only. `number` counts connections from 0."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, number: int) -> None:
        self._websocket = websocket
        self.number = number
        self.forgets_sessions = True
        """Whether a client that resumes its session is told that there is none; else the script has to answer."""

    async def welcome(self, heartbeat: int = 25_000) -> None:
        limits = Limits(message=65536, subscriptions=100)
        welcome = Welcome(
            session=f"session-{self.number}", connection=f"peer-{self.number}", heartbeat=heartbeat, limits=limits
        )
        await self.send(Envelope(MessageType.WELCOME, data=welcome.fields()))

    async def receive(self) -> Envelope:
        while True:
            payload = await self._websocket.get_message()
            assert isinstance(payload, str)
            command = decode_json(payload.encode())
            if not self.forgets_sessions or not await self._forget_session(command):
                return command

    async def _forget_session(self, command: Envelope) -> bool:
        if command.type == MessageType.PING and command.id == "~mark":
            await self.send(Envelope(MessageType.PONG, id=command.id))
            return True
        if command.type != MessageType.AUTH or "session" not in (command.value or {}):
            return False
        await self.end_resumption(command, resumed=False)
        return True

    async def resume(self) -> Authenticate:
        """Receive what resumes a session, and answer its `ping`; `end_resumption` comes after the channels."""
        ping, self.resuming = await self.receive(), await self.receive()
        assert (ping.type, self.resuming.type) == (MessageType.PING, MessageType.AUTH)
        await self.send(Envelope(MessageType.PONG, id=ping.id))
        return read(Authenticate, self.resuming)

    async def end_resumption(self, command: Envelope, *, resumed: bool = True) -> None:
        data = Authenticated(user=None, session="s", resumed=resumed)
        await self.send(Envelope(MessageType.OK, id=command.id, data=data.fields()))

    async def send(self, envelope: Envelope) -> None:
        await self._websocket.send_message(encode_json(envelope).decode())

    async def publish(self, channel: str, data: Any) -> None:
        await self.send(Envelope(MessageType.PUB, channel=channel, data=data))

    async def accept(self, kind: str) -> Envelope:
        """Receive the next command, which has to be of that kind, and answer `ok`."""
        command = await self.receive()
        assert command.type == kind, command
        await self.send(Envelope(MessageType.OK, id=command.id, channel=command.channel, data={"id": "made"}))
        return command

    async def refuse(self, code: str) -> None:
        command = await self.receive()
        refusal = ErrorData(code=code, message="no, thank you")
        await self.send(Envelope(MessageType.ERR, id=command.id, data=refusal.fields()))

    async def close(self, code: int) -> None:
        await self._websocket.aclose(code)

    async def cut(self, last: bytes) -> None:
        """Send these bytes, and end the connection without a close frame."""
        stream = self._websocket._stream
        await stream.send_all(last)
        await trio.aclose_forcefully(stream)

    async def until_closed(self) -> None:
        """Read until the client has gone, and ignore it."""
        while True:
            await self.receive()


Script = Callable[[Talk], Awaitable[None]]


@asynccontextmanager
async def running_peer(script: Script) -> AsyncIterator[str]:
    """Serve until the block ends; yields the URL. A script may end because the client leaves."""
    connections = 0

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        nonlocal connections
        number, connections = connections, connections + 1
        websocket = await request.accept(subprotocol=request.proposed_subprotocols[0])
        with suppress(trio_websocket.ConnectionClosed):
            await script(Talk(websocket, number))

    async with _serving(handle) as url:
        yield url


@asynccontextmanager
async def refusing_peer(status: int, body: bytes) -> AsyncIterator[str]:
    """Answer every handshake with this HTTP status."""

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        await request.reject(status, body=body)

    async with _serving(handle) as url:
        yield url


@asynccontextmanager
async def _serving(handle: Callable[[trio_websocket.WebSocketRequest], Awaitable[None]]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None)
        server: trio_websocket.WebSocketServer = await nursery.start(serve)
        yield f"ws://127.0.0.1:{server.port}/ws"
        nursery.cancel_scope.cancel()
