"""`python -m fanline.loadtest.bench.floods.flooder KIND PORT`: one attacker, until its input ends.

It comes from the address 203.0.113.7, as a trusted proxy says, since loopback is not limited. When its input ends it
prints what it got as a JSON line.
"""

import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

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

    def __init__(self, port: int) -> None:
        self._port = port
        self.got = Counter[str]()
        """What the attacker did and met, and how often."""

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
        """Send the same, as fast as it is taken, from one connection after the other."""
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                async with stream, trio.open_nursery() as nursery:
                    await stream.send_all(_request(dialect))
                    nursery.start_soon(self._read, stream, nursery.cancel_scope)
                    while True:
                        await stream.send_all(data)
                        self.got["sent"] += 1
                        await trio.sleep(pause)
            await trio.sleep(_TICK_SECONDS)

    async def _read(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some(_READ_BYTES):
                self.got["warned"] += data.count(b"limit_exceeded")
        self.got["closed"] += 1
        scope.cancel()

    async def _shake_hands(self) -> None:
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                await stream.send_all(_request(JSON))
                self.got[(await stream.receive_some(12))[9:].decode()] += 1

    async def _dawdle(self) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                    for byte in _request(JSON):
                        await stream.send_all(bytes((byte,)))
                        await trio.sleep(1.0)
            self.got["closed"] += 1


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


async def _flood(kind: str, port: int) -> Counter[str]:
    flooder = Flooder(port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(FLOODS[kind], flooder)
        print("{}", flush=True)  # noqa: T201  # it has begun
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    return flooder.got


def main() -> None:
    os.nice(10)  # what is measured is what the server does, not who gets the processor
    kind, port = sys.argv[1:3]
    print(msgspec.json.encode(trio.run(_flood, kind, int(port))).decode(), flush=True)  # noqa: T201  # a program
    os._exit(0)  # the thread that reads the input


if __name__ == "__main__":
    main()
