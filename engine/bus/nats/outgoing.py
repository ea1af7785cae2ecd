"""Messages on their way to NATS: what the server counts of each, and a queue that is bounded in bytes. No I/O."""

from collections import deque
from typing import NamedTuple

from fanline.engine.bus.interface import BusError, TooLargeError

MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Bytes that may wait to be sent; more means that NATS does not keep up."""
_OVERHEAD = 512  # bytes that a queued message takes besides its payload
_HEADER_BYTES = 32  # at most, for the first line of the headers and the punctuation of one header


class Outgoing(NamedTuple):
    """A message to send."""

    subject: str
    payload: bytes
    reply: str = ""
    headers: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes that the server counts, headers included (rounded up)."""
        headers = (self.headers or {}).items()
        return len(self.payload) + sum(_HEADER_BYTES + len(f"{key}{value}".encode()) for key, value in headers)


class OutgoingQueue:
    """First in, first out."""

    def __init__(self) -> None:
        self._messages: deque[Outgoing] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Outgoing, max_payload: int) -> None:
        """Append a message; `max_payload`: bytes that the server takes. BusError if too many wait, TooLargeError."""
        if self._bytes + len(message.payload) > MAX_QUEUED_BYTES:
            raise BusError("NATS does not keep up; nothing was done")
        # The server ends the connection of a client that sends too much: an outage for every client of this worker.
        if message.size > max_payload:
            raise TooLargeError(f"{message.size} bytes with headers, but NATS takes {max_payload}")
        self._messages.append(message)
        self._bytes += len(message.payload) + _OVERHEAD

    def pop(self) -> Outgoing:
        """The oldest message."""
        message = self._messages.popleft()
        self._bytes -= len(message.payload) + _OVERHEAD
        return message
