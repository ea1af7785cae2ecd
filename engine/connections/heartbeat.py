"""Heartbeats of all connections from one wheel: a slice of them at every tick, so a worker never pings all at once.

Whether a client is alive is not decided here: its connection's deadline does that, and any byte it sends moves it.
"""

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.connections.connection import Connection
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.websocket.frames import Opcode, encode_frame

_PING = encode_frame(Opcode.PING, b"")


class Heartbeat:
    """A wheel of about one slice per second; every connection is on one slice and is pinged once a turn."""

    def __init__(self, interval: float) -> None:
        self._slices: list[dict[Connection, None]] = [{} for _ in range(max(1, round(interval)))]
        self._tick = interval / len(self._slices)
        self._next = 0

    def add(self, connection: Connection) -> None:
        """Put a connection on the next slice in turn."""
        self._next = (self._next + 1) % len(self._slices)
        connection.beat = self._next
        self._slices[self._next][connection] = None

    def remove(self, connection: Connection) -> None:
        """Take a connection off the wheel."""
        del self._slices[connection.beat][connection]

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            for members in self._slices:
                await trio.sleep(self._tick)
                beats: dict[Encoding, bytes] = {}
                for connection in members:
                    encoding = connection.session.encoding
                    if encoding not in beats:
                        beats[encoding] = _beat(encoding)
                    connection.outbox.push(beats[encoding])
                    connection.session.note_again()


def _beat(encoding: Encoding) -> bytes:
    message = encoding.dialect.heartbeat(unix_ms())
    return _PING if message is None else _PING + encoding.frame(message)
