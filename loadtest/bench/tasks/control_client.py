"""A WebSocket that sends commands one by one and reads for their answers."""

import select
import socket
from typing import Self

from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, send_message, upgrade_request
from fanline.loadtest.bench.errors import BenchError
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.websocket.frames import FrameReader, Opcode

_PATIENCE_SECONDS = 60.0


class ControlClient:
    """One connection, beside those of the viewers."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._socket = socket.create_connection(("127.0.0.1", endpoint.port), _PATIENCE_SECONDS)
        self._socket.sendall(upgrade_request(endpoint))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        self._reader = FrameReader(1 << 24, from_client=False)
        self._frames = [frame.payload for frame in self._reader.feed(head.partition(b"\r\n\r\n")[2])]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, command: Envelope) -> None:
        send_message(self._socket, Opcode.TEXT, encode_json(command))

    def has_unread(self) -> bool:
        """Whether something has arrived that was not read yet."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def read_until(self, mark: bytes) -> bytes:
        """The next message that contains `mark`."""
        while True:
            while self._frames:
                if mark in (payload := self._frames.pop(0)):
                    return payload
            self._frames += [frame.payload for frame in self._reader.feed(self._receive())]

    def _receive(self) -> bytes:
        if not (data := self._socket.recv(1 << 20)):
            raise BenchError("the server closed the connection of the client that sends the commands")
        return data
