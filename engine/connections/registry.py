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
from fanline.engine.sessions.connection_ids import number_of
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import Opcode, encode_frame

_PING = encode_frame(Opcode.PING, b"")


class Registry:
    """`heartbeat`: seconds between two pings of one connection."""

    def __init__(self, heartbeat: float, counters: Counters, faults: Faults) -> None:
        self._counters = counters
        self._faults = faults
        self._slices: list[dict[int, Connection]] = [{} for _ in range(max(1, round(heartbeat)))]
        """Each by the numbers of its connections."""
        self._tick = heartbeat / len(self._slices)
        self._pinged = [0.0] * len(self._slices)
        """When each slice was last pinged, by Trio's clock; 0.0: never."""

    def __iter__(self) -> Iterator[Connection]:
        """A snapshot: connections may come and go while it is gone through."""
        return iter([connection for members in self._slices for connection in members.values()])

    def everyone(self) -> Iterable[tuple[Encoding, Outbox]]:
        """Encoding and outbox of every connection."""
        return ((connection.session.encoding, connection.outbox) for connection in self)

    def get(self, connection: str) -> Connection | None:
        """The connection with this public id; None if it is not open in this worker."""
        number = number_of(connection)
        return None if number is None else self._slice_of(number).get(number)

    def find(self, connection: str) -> Outbox | None:
        """Its outbox."""
        found = self.get(connection)
        return None if found is None else found.outbox

    def pinged(self, connection: Connection) -> float:
        """When a connection was last sent a ping, by Trio's clock; 0.0 if never. Not for one that was opened since."""
        return self._pinged[connection.session.number % len(self._slices)]

    def users(self) -> Iterator[str | None]:
        """The user of every connection; None for one without a user name."""
        return (connection.session.identity.user for connection in self)

    async def serve(self, connection: Connection, rest: bytes) -> None:
        """Run a connection, which is open until this returns; `rest` is what came with its handshake."""
        number = connection.session.number
        members = self._slice_of(number)
        members[number] = connection
        self._counters.connections += 1
        self._counters.opened += 1
        try:
            await connection.run(rest)
        finally:
            del members[number]
            self._counters.connections -= 1

    async def beat(self) -> None:
        """Turn the wheel forever."""
        while True:
            for number, members in enumerate(self._slices):
                await trio.sleep(self._tick)
                self._ping(list(members.values()))
                self._pinged[number] = trio.current_time()

    def _slice_of(self, number: int) -> dict[int, Connection]:
        return self._slices[number % len(self._slices)]

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
