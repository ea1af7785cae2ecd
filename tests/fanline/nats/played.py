"""NATS played by a test: what a client says is read, and its answers are written, without I/O."""

from typing import NamedTuple

from fanline.nats.requests import NatsRequests
from fanline.protocol.nats.connection import NatsConnection
from fanline.protocol.nats.parser import Parser
from fanline.protocol.nats.replies import Complaint, ServerInfo

ACK = b'{"stream":"FANLINE_task","seq":1}'


class Said(NamedTuple):
    """A PUB or HPUB of the client."""

    subject: str
    reply: str
    payload: bytes
    headers: bytes


class PlayedNats:
    """A NatsRequests and the server's side of its connection."""

    def __init__(self, *, max_payload: int = 1 << 20) -> None:
        self.requests = NatsRequests()
        self.complaints: list[Complaint] = []
        self.commands: list[bytes] = []
        """Lines other than publications that were said since the last connection."""
        self._info = ServerInfo(headers=True, max_payload=max_payload)
        self._connection: NatsConnection | None = None

    def connect(self) -> None:
        self.commands = []
        self._connection = NatsConnection(
            self._info,
            Parser(),
            self.requests.subscriptions,
            on_work=lambda: None,
            on_complaint=self.complaints.append,
        )
        self.requests.attach(self._connection)

    def disconnect(self) -> None:
        self._connection = None
        self.requests.detach()

    def said(self, subject: str | None = None) -> list[Said]:
        """What was published since the last call, on one subject or on all."""
        assert self._connection is not None
        data, found = self._connection.take_output(), list[Said]()
        while data:
            line, _, data = data.partition(b"\r\n")
            verb, *words = line.split()
            if verb not in (b"PUB", b"HPUB"):
                self.commands.append(line)
                continue
            size = int(words[-1])
            head = int(words[-2]) if verb == b"HPUB" else 0
            reply = words[1].decode() if len(words) > (3 if head else 2) else ""
            found.append(Said(words[0].decode(), reply, data[head:size], data[:head]))
            data = data[size + 2 :]
        return [each for each in found if subject in (None, each.subject)]

    def answer(self, said: Said, payload: bytes = ACK) -> None:
        self.hears(b"MSG %s 1 %d\r\n%s\r\n" % (said.reply.encode(), len(payload), payload))

    def answer_page(self, said: Said, payloads: list[bytes], more: int = 0) -> None:
        """As JetStream answers a batched direct get; the offsets are 101, 102, ..."""
        for offset, payload in enumerate(payloads, 101):
            headers = b"NATS/1.0\r\nNats-Sequence: %d\r\n\r\n" % offset
            sizes = len(headers), len(headers) + len(payload)
            self.hears(b"HMSG %s 1 %d %d\r\n%s%s\r\n" % (said.reply.encode(), *sizes, headers, payload))
        self.answer_status(said, 204, f"Nats-Num-Pending: {more}\r\n")

    def answer_status(self, said: Said, status: int, more: str = "") -> None:
        """As the server does in place of a client."""
        headers = b"NATS/1.0 %d\r\n%s\r\n" % (status, more.encode())
        self.hears(b"HMSG %s 1 %d %d\r\n%s\r\n" % (said.reply.encode(), len(headers), len(headers), headers))

    def deliver(self, sid: int, subject: str, payload: bytes, reply: str = "") -> None:
        words = " ".join(filter(None, (subject, str(sid), reply, str(len(payload)))))
        self.hears(b"MSG %s\r\n%s\r\n" % (words.encode(), payload))

    def hears(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.receive(data)
