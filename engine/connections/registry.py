"""The registry: all open connections of a worker, and the wheel that pings them.

A connection is on one slice of a wheel with about one slice a second, and every slice is pinged once a turn, so a
worker never pings all its connections at once. Whether a client is alive is not decided here: its connection's deadline
does that, and any byte the client sends moves it.
"""

from collections.abc import Iterable, Iterator

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.connections.connection import Connection
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import Opcode, encode_frame

_PING = encode_frame(Opcode.PING, b"")


class Registry:
    """`heartbeat`: seconds between two pings of one connection."""

    def __init__(self, heartbeat: float, counters: Counters, faults: Faults) -> None:
        self._counters = counters
        self._faults = faults
        self._slices: list[dict[Connection, None]] = [{} for _ in range(max(1, round(heartbeat)))]
        self._tick = heartbeat / len(self._slices)
        self._next = 0

    def __iter__(self) -> Iterator[Connection]:
        """A snapshot: connections may come and go while it is gone through."""
        return iter([connection for members in self._slices for connection in members])

    def everyone(self) -> Iterable[tuple[Encoding, Outbox]]:
        """Encoding and outbox of every connection."""
        return ((connection.session.encoding, connection.outbox) for members in self._slices for connection in members)

    async def serve(self, connection: Connection, rest: bytes) -> None:
        """Run a connection, which is open until this returns; `rest` is what came with its handshake."""
        self._next = (self._next + 1) % len(self._slices)
        members = self._slices[self._next]
        members[connection] = None
        self._counters.connections += 1
        try:
            await connection.run(rest)
        finally:
            del members[connection]
            self._counters.connections -= 1

    async def beat(self) -> None:
        """Turn the wheel for ever."""
        while True:
            for members in self._slices:
                await trio.sleep(self._tick)
                self._ping(list(members))

    def _ping(self, connections: Iterable[Connection]) -> None:
        beats: dict[Encoding, bytes] = {}
        for connection in connections:
            encoding = connection.session.encoding
            try:
                if encoding not in beats:
                    beats[encoding] = _beat(encoding)
                connection.outbox.push(beats[encoding])
                connection.session.store_again()
            except Exception:  # noqa: BLE001  # our own fault, and that of one connection only
                self._faults.report("the heartbeat", "a connection cannot be pinged, and ends")
                connection.close(CloseReason.INTERNAL)


def _beat(encoding: Encoding) -> bytes:
    message = encoding.dialect.heartbeat(unix_ms())
    return _PING if message is None else _PING + encoding.frame(message)
