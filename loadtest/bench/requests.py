"""Counts what the workers ask of JetStream, by listening in on its API subjects.

Only what they ask of one namespace's stream: whoever keeps the tasks asks all the time, whatever a bench does.
"""

import socket
from collections import Counter
from urllib.parse import urlsplit

from fanline.protocol.nats.client_protocol import PING, PONG, connect_command
from fanline.protocol.nats.names import stream_name

_SUBJECTS = b"$JS.API."
_TIMEOUT = 5.0


class RequestCount:
    """One connection to NATS; `read` whenever `socket` is readable."""

    def __init__(self, url: str, token: str, namespace: str) -> None:
        where = urlsplit(url)
        self.socket = socket.create_connection((where.hostname, where.port), _TIMEOUT)
        self._stream = stream_name(namespace)
        self._rest = b""
        self._counts: Counter[str] = Counter()
        self.socket.sendall(connect_command(token=token) + b"SUB %s> 1\r\n" % _SUBJECTS + PING)
        while PONG not in self._rest:
            self._rest += self.socket.recv(65536)
        self._rest = b""
        self.socket.setblocking(False)

    def read(self) -> None:
        """Take what has come."""
        try:
            while data := self.socket.recv(1 << 20):
                self._take(data)
        except BlockingIOError:
            return

    def counts(self) -> dict[str, int]:
        """Kind of request, as in "STREAM.INFO.FANLINE_task" -> how many since the last call."""
        self.read()
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def close(self) -> None:
        self.socket.close()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line.startswith(b"MSG " + _SUBJECTS):
                subject = line.split(b" ")[1].removeprefix(_SUBJECTS).decode()
                if self._stream in (words := subject.split(".")):
                    self._counts[".".join(words[:3])] += 1
            elif line == b"PING":
                self.socket.sendall(PONG)
