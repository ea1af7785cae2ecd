"""`python -m fanline.loadtest.bench.floods.flooder KIND PORT`: one attacker, until its input ends.

It connects from the address 203.0.113.7, as a trusted proxy reports, since loopback is not limited. When its input
ends it prints its counts as a JSON line.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

from fanline.loadtest.bench.beside import disturb
from fanline.protocol.dialects import CBOR, JSON, Dialect
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.websocket.frames import encode_masked_frame

MESSAGES_PER_SECOND = 10_000
HANDSHAKES_PER_SECOND = 1000
SUBSCRIPTIONS = 10_000
SLOW_HANDSHAKES = 500
ARRAY_CONNECTIONS = 20
_ARRAYS = 60_000  # in one message, a byte each
_TICK_SECONDS = 0.01
_MASK = b"mask"
_READ_BYTES = 1 << 16


class Flooder:
    """Attacks the server on a port of this machine."""

    def __init__(self, port: int, got: Counter[str]) -> None:
        """`got`: what the attacker did and what happened to it, and how often."""
        self._port = port
        self._got = got

    async def messages(self) -> None:
        """One client that sends 10,000 messages a second."""
        ping = _frame(JSON, Envelope(MessageType.PING, id="p"))
        await self._send_for_ever(JSON, ping * int(MESSAGES_PER_SECOND * _TICK_SECONDS), _TICK_SECONDS)

    async def handshakes(self) -> None:
        """1,000 handshakes a second."""
        async with trio.open_nursery() as nursery:
            while True:
                for _ in range(int(HANDSHAKES_PER_SECOND * _TICK_SECONDS)):
                    nursery.start_soon(self._shake_hands)
                await trio.sleep(_TICK_SECONDS)

    async def subscriptions(self) -> None:
        """One client that subscribes to 10,000 channels, again and again."""
        subs = [Envelope(MessageType.SUB, channel=f"news:f{number}", id="s") for number in range(SUBSCRIPTIONS)]
        await self._send_for_ever(JSON, b"".join(_frame(JSON, sub) for sub in subs))

    async def slow_handshakes(self) -> None:
        """500 handshakes, each of which sends a byte a second."""
        async with trio.open_nursery() as nursery:
            for _ in range(SLOW_HANDSHAKES):
                nursery.start_soon(self._dawdle)

    async def arrays(self) -> None:
        """20 clients that send nothing but arrays of tiny arrays, in CBOR."""
        frame = _frame(CBOR, Envelope(MessageType.PING, id="p", data=[[]] * _ARRAYS))
        async with trio.open_nursery() as nursery:
            for _ in range(ARRAY_CONNECTIONS):
                nursery.start_soon(self._send_for_ever, CBOR, frame)

    async def _send_for_ever(self, dialect: Dialect, data: bytes, pause: float = 0.0) -> None:
        """Send the same bytes, as fast as they are accepted, from one connection after the other."""
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                async with stream, trio.open_nursery() as nursery:
                    await stream.send_all(_request(dialect))
                    nursery.start_soon(self._read, stream, nursery.cancel_scope)
                    while True:
                        await stream.send_all(data)
                        self._got["sent"] += 1
                        await trio.sleep(pause)
            await trio.sleep(_TICK_SECONDS)

    async def _read(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some(_READ_BYTES):
                self._got["warned"] += data.count(b"limit_exceeded")
        self._got["closed"] += 1
        scope.cancel()

    async def _shake_hands(self) -> None:
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                await stream.send_all(_request(JSON))
                self._got[(await stream.receive_some(12))[9:].decode()] += 1

    async def _dawdle(self) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                    for byte in _request(JSON):
                        await stream.send_all(bytes((byte,)))
                        await trio.sleep(1.0)
            self._got["closed"] += 1


FLOODS: dict[str, Callable[[Flooder], Awaitable[None]]] = {
    "messages": Flooder.messages,
    "handshakes": Flooder.handshakes,
    "subscriptions": Flooder.subscriptions,
    "slow-handshakes": Flooder.slow_handshakes,
    "arrays": Flooder.arrays,
}


def _frame(dialect: Dialect, envelope: Envelope) -> bytes:
    return encode_masked_frame(dialect.opcode, dialect.encode(envelope), _MASK)


def _request(dialect: Dialect) -> bytes:
    lines = (
        "GET /ws HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Protocol: fanline.v1.{dialect.name}",
        "X-Forwarded-For: 203.0.113.7",
    )
    return "\r\n".join((*lines, "", "")).encode()


async def _flood(flood: Callable[[Flooder], Awaitable[None]], port: int, got: Counter[str]) -> None:
    await flood(Flooder(port, got))


if __name__ == "__main__":
    disturb({kind: partial(_flood, flood) for kind, flood in FLOODS.items()})
