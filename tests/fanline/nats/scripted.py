"""A nats-server that follows a script, on a real socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

INFO = b'INFO {"version":"2.15.1","max_payload":100,"headers":true}\r\n'


class ScriptedServer:
    """One connection of a client, and what it has sent."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.received = b""

    async def read_until(self, mark: bytes) -> bytes:
        """What has come since the last call, up to and with the mark."""
        while mark not in self.received:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError
            self.received += data
        found, _, self.received = self.received.partition(mark)
        return found + mark

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def log_in(self) -> bytes:
        await self.send(INFO)
        login = await self.read_until(b"PING\r\n")
        await self.send(b"PONG\r\n")
        return login


@asynccontextmanager
async def listening(serve: Callable[[ScriptedServer], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that plays `serve` to each client; its URL."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(EOFError):
                await serve(ScriptedServer(stream))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            yield f"nats://s3cret@127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()
