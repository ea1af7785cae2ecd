"""NATS as producers and operators see it: publish, and call the JetStream API. Over a Trio stream."""

import itertools
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import PING, PONG, Login, hello, publish, subscribe
from fanline.protocol.nats.replies import ServerInfo

_numbers = itertools.count()


class NatsClient:
    """One connection, to be used by one task."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self._inbox = f"_INBOX.test.{os.getpid()}.{next(_numbers)}"  # each client hears its own replies alone

    async def publish(self, *messages: tuple[str, bytes], headers: Mapping[str, str] | None = None) -> None:
        """Send (subject, payload) pairs, all with the same headers. Nothing is acknowledged."""
        commands = (publish(subject, payload, headers) for subject, payload in messages)
        await self._stream.send_all(b"".join(commands))

    async def flush(self) -> None:
        """Wait until the server has taken everything sent so far."""
        await self._stream.send_all(PING)
        while await self._line() != b"PONG":
            pass

    async def ask(self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON reply to a request."""
        await self._stream.send_all(publish(subject, payload, headers, reply=self._inbox))
        while not (line := await self._line()).startswith(b"MSG "):
            pass
        decoded: dict[str, Any] = msgspec.json.decode(await self._exactly(int(line.rpartition(b" ")[2]) + 2))
        return decoded

    async def api(self, verb: str, request: Mapping[str, Any] | None = None, stream: str = "FANLINE_task") -> Any:
        """The reply of the JetStream API, which must not be an error."""
        reply = await self.ask(f"$JS.API.{verb}.{stream}", msgspec.json.encode(request) if request else b"")
        assert "error" not in reply, reply
        return reply

    async def greet(self, login: Login) -> None:
        assert (await self._line()).startswith(b"INFO ")
        greeting = hello(ServerInfo(), login, name="", tls=False)
        await self._stream.send_all(greeting + subscribe(self._inbox, 1))
        while await self._line() != b"PONG":  # of the login
            pass
        await self.flush()

    async def _line(self) -> bytes:
        """The next line. Answers the server's pings; fails on its errors."""
        while True:
            while b"\r\n" not in self._buffer:
                await self._more()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            assert not line.startswith(b"-ERR"), line
            if line != b"PING":
                return line
            await self._stream.send_all(PONG)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def _more(self) -> None:
        data = await self._stream.receive_some()
        assert data, "NATS closed the connection"
        self._buffer += data


@asynccontextmanager
async def connect_nats(url: str, token: str = "") -> AsyncIterator[NatsClient]:
    """`url` may hold the login."""
    address = parse_url(url)
    login = Login(address.user, address.password, token or address.token)
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        client = NatsClient(stream)
        await client.greet(login)
        yield client
