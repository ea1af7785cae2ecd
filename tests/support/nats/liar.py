"""A producer that lies: whatever a NATS client can send with the producers' login, and what it gets."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import PING, PONG, Login, hello, publish, subscribe
from fanline.protocol.nats.parser import NatsMessage, Parser
from fanline.protocol.nats.replies import ServerInfo

INBOX = "_INBOX.liar"


class Liar:
    """One connection. What NATS denies is in `denied`, and what it delivers in `heard`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.denied: list[str] = []
        self.heard: list[NatsMessage] = []
        self._stream = stream
        self._parser = Parser()
        self._numbers = itertools.count(1)

    async def log_in(self, login: Login) -> None:
        greeting = hello(ServerInfo(), login, name="liar", tls=False)
        await self._stream.send_all(greeting + subscribe(f"{INBOX}.>", next(self._numbers)))
        await self._wait_pong()
        await self.flush()

    async def say(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Publish, and wait until NATS has taken or denied it."""
        await self._stream.send_all(publish(subject, payload, headers, reply=reply))
        await self.flush()

    async def hear(self, subject: str) -> None:
        await self._stream.send_all(subscribe(subject, next(self._numbers)))
        await self.flush()

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> NatsMessage:
        """The answer to a request."""
        reply = f"{INBOX}.{next(self._numbers)}"
        await self.say(subject, payload, headers, reply)
        while not (found := [each for each in self.heard if each.subject == reply]):
            await self._receive()
        return found[0]

    async def flush(self) -> None:
        await self._stream.send_all(PING)
        await self._wait_pong()

    async def _wait_pong(self) -> None:
        while "PONG" not in await self._receive():
            pass

    async def _receive(self) -> list[str]:
        """Take what comes next; its verbs."""
        data = await self._stream.receive_some()
        assert data, "NATS has closed the connection"
        verbs = []
        for one in self._parser.feed(data):
            if isinstance(one, NatsMessage):
                self.heard.append(one)
                continue
            verbs.append(one.verb)
            if one.verb == "-ERR":
                self.denied.append(one.detail)
            elif one.verb == "PING":
                await self._stream.send_all(PONG)
        return verbs


@asynccontextmanager
async def lying(url: str) -> AsyncIterator[Liar]:
    """A liar with the login in a NATS URL."""
    address = parse_url(url)
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        liar = Liar(stream)
        await liar.log_in(Login(address.user, address.password))
        yield liar
