"""Users of one server in one epoll loop: they subscribe, come and go on command, and ask who is there."""

import select
import socket
import time
from collections.abc import Callable
from typing import Self

import msgspec

from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, send_message
from fanline.loadtest.bench.errors import BenchError
from fanline.protocol.auth.tokens import sign
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.messages.answers import PresenceData
from fanline.protocol.websocket.frames import FrameReader, Opcode

_READ_BYTES = 256 * 1024
_OPENING = 64  # handshakes under way at a time
_FAR = 4e9  # Unix seconds at which the tokens end


class _Answer(msgspec.Struct):
    t: str
    i: str = ""
    d: msgspec.Raw = msgspec.Raw()


_answer = msgspec.json.Decoder(_Answer)


class CrowdUser:
    """One user with one connection."""

    __slots__ = ("answers", "connection", "lost", "name", "reader", "ready", "rest")

    def __init__(self, name: str, connection: socket.socket) -> None:
        self.name = name
        self.connection = connection
        self.reader: FrameReader | None = None  # after the handshake
        self.rest = b""
        self.ready = False  # the welcome has arrived
        self.lost = False
        self.answers: dict[str, _Answer] = {}

    def say(self, envelope: Envelope) -> None:
        if not self.lost:
            send_message(self.connection, Opcode.TEXT, encode_json(envelope))


class Crowd:
    """`count` users. Nothing is read outside `run`, so it must be called often enough."""

    def __init__(self, endpoint: Endpoint, secret: str) -> None:
        self._endpoint = endpoint
        self._secret = secret.encode()
        self._epoll = select.epoll()
        self._by_file: dict[int, CrowdUser] = {}
        self.users: list[CrowdUser] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for user in self.users:
            user.connection.close()
        self._epoll.close()

    @property
    def connected(self) -> list[CrowdUser]:
        """Those whose connection is open."""
        return [user for user in self.users if not user.lost]

    def connect(self, names: list[str], patience: float) -> list[CrowdUser]:
        """Connect these users, a few at a time. Raises BenchError."""
        opened = []
        for name in names:
            opened.append(self._open(name))
            waiting = opened[-_OPENING:]
            self.run(patience, lambda waiting=waiting: waiting[0].ready or len(waiting) < _OPENING)  # type: ignore[misc]
        if not self.run(patience, lambda: all(user.ready for user in opened)):
            raise BenchError(f"not all users were connected within {patience:g} s")
        return opened

    def ask(self, user: CrowdUser, envelope: Envelope, patience: float) -> tuple[float, _Answer]:
        """Seconds until the answer, and the answer. Raises BenchError."""
        begun = time.perf_counter()
        user.say(envelope)
        if not self.run(patience, lambda: envelope.id in user.answers):
            raise BenchError(f"`{envelope.type}` was not answered within {patience:g} s")
        answer = user.answers.pop(envelope.id or "")
        if answer.t != MessageType.OK:
            raise BenchError(f"`{envelope.type}` was refused: {bytes(answer.d).decode()}")
        return time.perf_counter() - begun, answer

    def query(self, user: CrowdUser, channel: str, patience: float) -> tuple[float, PresenceData]:
        """Seconds until the answer to a query, and who is there."""
        seconds, answer = self.ask(user, Envelope(MessageType.PRESENCE, channel=channel, id="who"), patience)
        return seconds, msgspec.json.decode(answer.d, type=PresenceData)

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Serve all users for `seconds` seconds, or until `done`; returns whether it is done."""
        deadline = time.perf_counter() + seconds
        while not done():
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            for file, _ in self._epoll.poll(min(left, 0.05)):
                self._read(self._by_file[file])
        return True

    def _open(self, name: str) -> CrowdUser:
        connection = socket.create_connection(("127.0.0.1", self._endpoint.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(_handshake(self._endpoint, sign(_claims(name), self._secret)))
        user = self._by_file[connection.fileno()] = CrowdUser(name, connection)
        self.users.append(user)
        self._epoll.register(connection, select.EPOLLIN)
        return user

    def _read(self, user: CrowdUser) -> None:
        try:
            data = user.connection.recv(_READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            user.lost = True
            self._epoll.unregister(user.connection)
            return
        if user.reader is None:
            head, end, data = (user.rest + data).partition(b"\r\n\r\n")
            if not end:
                user.rest = head
                return
            if b" 101 " not in head[:16]:
                raise BenchError(f"the handshake was refused: {head[:80]!r}")
            user.reader = FrameReader(1 << 24, from_client=False)
        for message in user.reader.feed(data):
            if message.opcode is Opcode.TEXT:
                self._take(user, _answer.decode(message.payload))
            elif message.opcode is Opcode.PING:
                send_message(user.connection, Opcode.PONG, message.payload)

    def _take(self, user: CrowdUser, answer: _Answer) -> None:
        if answer.t == MessageType.WELCOME:
            user.ready = True
        elif answer.i:
            user.answers[answer.i] = answer


def _claims(name: str) -> dict[str, object]:
    return {"sub": name, "username": name.upper(), "exp": _FAR, "channels": {"*": ["sub", "pub", "presence"]}}


def _handshake(endpoint: Endpoint, token: str) -> bytes:
    return (
        f"GET {endpoint.path} HTTP/1.1\r\nHost: 127.0.0.1:{endpoint.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: fanline.v1.json\r\n\r\n"
    ).encode()
