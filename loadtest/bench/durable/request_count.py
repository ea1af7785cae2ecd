"""Counts the requests of the workers to JetStream, by listening on its API subjects.

Only requests about one namespace's stream count: the task monitor sends requests all the time, whatever the bench does.
"""

import socket
from collections import Counter
from urllib.parse import urlsplit

from fanline.protocol.nats.commands import PING, PONG, Login, hello, subscribe
from fanline.protocol.nats.names import stream_name
from fanline.protocol.nats.replies import ServerInfo

_SUBJECTS = "$JS.API."
_MESSAGE = f"MSG {_SUBJECTS}".encode()
_TIMEOUT = 5.0


class RequestCount:
    """One connection to NATS. Call `read` whenever `socket` is readable."""

    def __init__(self, url: str, login: Login, namespace: str) -> None:
        where = urlsplit(url)
        self.socket = socket.create_connection((where.hostname, where.port), _TIMEOUT)
        self._stream = stream_name(namespace)
        self._rest = b""
        self._counts: Counter[str] = Counter()
        greeting = hello(ServerInfo(), login, name="bench", tls=False)
        self.socket.sendall(greeting + subscribe(f"{_SUBJECTS}>", 1) + PING)
        while self._rest.count(PONG) < 2:  # that of the login, and our own
            self._rest += self.socket.recv(65536)
        self._rest = b""
        self.socket.setblocking(False)

    def read(self) -> None:
        """Count what has arrived."""
        try:
            while data := self.socket.recv(1 << 20):
                self._take(data)
        except BlockingIOError:
            return

    def counts(self) -> dict[str, int]:
        """Kind of request, as in "STREAM.INFO.FANLINE_task" -> number of requests since the last call."""
        self.read()
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def close(self) -> None:
        self.socket.close()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line.startswith(_MESSAGE):
                subject = line.split(b" ")[1].decode().removeprefix(_SUBJECTS)
                if self._stream in (words := subject.split(".")):
                    self._counts[".".join(words[:3])] += 1
            elif line == b"PING":
                self.socket.sendall(PONG)
