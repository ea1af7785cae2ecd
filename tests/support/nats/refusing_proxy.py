"""A proxy before a NATS server that knows its protocol: chosen messages are refused as JetStream would, or acknowledged
late.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio

REFUSED = b'{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}'
_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Answer(NamedTuple):
    """What a client gets to hear of one of its messages."""

    refused: bool = False
    """A 503; the server never sees the message."""
    delay: float = 0.0
    """Seconds by which the acknowledgement is late."""


class RefusingProxy:
    """`choose` decides about each message to a subject that begins with `prefix`, by its number from 0."""

    def __init__(self, target: tuple[str, int], prefix: bytes, choose: Callable[[int], Answer]) -> None:
        self.port = 0
        self.messages = 0
        self.refused = 0
        self._target = target
        self._prefix = prefix
        self._choose = choose

    async def handle(self, client: trio.SocketStream) -> None:
        with suppress(*_BROKEN):
            async with await trio.open_tcp_stream(*self._target) as server, trio.open_nursery() as nursery:
                link = _Link(self, client, nursery)
                nursery.start_soon(link.carry_answers, server)
                async for line, payload in _commands(client):
                    if not await link.keeps(line):
                        await server.send_all(line + payload)
                nursery.cancel_scope.cancel()

    def answer_to(self, words: list[bytes]) -> Answer:
        """What a client is to hear of a command."""
        if words[0] not in (b"PUB", b"HPUB") or not words[1].startswith(self._prefix):
            return Answer()
        answer = self._choose(self.messages)
        self.messages += 1
        self.refused += answer.refused
        return answer


class _Link:
    """One client."""

    def __init__(self, proxy: RefusingProxy, client: trio.SocketStream, nursery: trio.Nursery) -> None:
        self._proxy = proxy
        self._client = client
        self._nursery = nursery
        self._sending = trio.Lock()
        self._inboxes: dict[bytes, bytes] = {}  # prefix of an inbox -> its subscription
        self._late: dict[bytes, float] = {}  # reply subject -> by how much its answer is late

    async def keeps(self, line: bytes) -> bool:
        """Whether a command of the client is not for the server."""
        words = line.split()
        if words[0] == b"SUB":
            self._inboxes[words[1].rstrip(b"*")] = words[-1]
        answer = self._proxy.answer_to(words)
        if answer.refused:
            await self._send(self._refusal(reply=words[2]))
        elif answer.delay:
            self._late[words[2]] = answer.delay
        return answer.refused

    async def carry_answers(self, server: trio.SocketStream) -> None:
        """Carry what the server says, until it or the client has gone."""
        with suppress(*_BROKEN):
            async for line, payload in _commands(server):
                words = line.split()
                delay = self._late.get(words[1], 0.0) if words[0] in (b"MSG", b"HMSG") else 0.0
                if delay:
                    self._nursery.start_soon(self._send_late, line + payload, delay)
                else:
                    await self._send(line + payload)
        self._nursery.cancel_scope.cancel()

    def _refusal(self, reply: bytes) -> bytes:
        (sid,) = [
            sid for inbox, sid in self._inboxes.items() if inbox.startswith(b"_INBOX.") and reply.startswith(inbox)
        ]
        return b"MSG %s %s %d\r\n%s\r\n" % (reply, sid, len(REFUSED), REFUSED)

    async def _send_late(self, data: bytes, delay: float) -> None:
        await trio.sleep(delay)
        with suppress(*_BROKEN):
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._client.send_all(data)


async def _commands(stream: trio.SocketStream) -> AsyncIterator[tuple[bytes, bytes]]:
    """Each line with its line end, and the payload that belongs to it with its own."""
    buffer = b""
    while data := await stream.receive_some():
        buffer += data
        while (end := buffer.find(b"\r\n")) >= 0:
            words = buffer[:end].split()
            size = int(words[-1]) + 2 if words and words[0] in _WITH_PAYLOAD else 0
            if len(buffer) < end + 2 + size:
                break
            yield buffer[: end + 2], buffer[end + 2 : end + 2 + size]
            buffer = buffer[end + 2 + size :]


@asynccontextmanager
async def refusing_proxy(
    target: tuple[str, int], choose: Callable[[int], Answer], *, prefix: str = "fanline.pub."
) -> AsyncIterator[RefusingProxy]:
    """A proxy to a NATS server until the block ends."""
    proxy = RefusingProxy(target, prefix.encode(), choose)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
