"""Subscribers of durable channels in one epoll loop. One that loses its connection comes back at once and resumes.

What it receives is checked by the numbers in the messages themselves (the stamp of native/common.h), not by the offsets
that the server reports.
"""

import heapq
import itertools
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import msgspec

from fanline.loadtest.bench.errors import BenchError
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_masked_frame

_MASK = b"\0\0\0\0"
_READ_BYTES = 256 * 1024
_LARGEST = 16 * 1024 * 1024
_EVENTS = 1024
_OWN_FILES = 200
_TICK_SECONDS = 0.01
_AGAIN_SECONDS = 0.05


class Endpoint(NamedTuple):
    """The port and path on which a server of this machine listens for WebSockets."""

    port: int
    path: str


class _Frame(msgspec.Struct):
    t: str
    o: int = 0
    ep: str = ""
    d: object = None


_decode = msgspec.json.Decoder(_Frame).decode


class Subscriber:
    """One subscriber over all its connections."""

    __slots__ = (
        "channel",
        "connection",
        "epoch",
        "gaps",
        "live",
        "missing",
        "next",
        "offset",
        "opened",
        "reach",
        "reader",
        "repeated",
        "rest",
        "times",
        "waits",
    )

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.connection: socket.socket | None = None
        self.reader: FrameReader | None = None  # after the handshake
        self.rest = b""  # the part of the handshake's answer that has arrived
        self.offset: int | None = None
        self.epoch = ""
        self.reach: int | None = None  # the offset where the history ends, once the `sub` is answered
        self.live = False
        self.next = self.missing = self.repeated = self.gaps = 0
        self.opened = 0.0
        self.waits: list[float] = []
        """For each connection: seconds from the attempt to connect until it was live, with everything it had missed."""
        self.times: list[float] = []
        """For each connection: when it was live, in seconds of the monotonic clock."""

    def subscription(self) -> Envelope:
        """The command that continues from the current position."""
        return Envelope(MessageType.SUB, channel=self.channel, id="sub", offset=self.offset, epoch=self.epoch or None)

    def take(self, frame: _Frame) -> None:
        """Count a message of the server."""
        if frame.t == "pub":
            self._count(str(frame.d))
            self.offset = frame.o
        elif frame.t == "ok":
            self.epoch, self.reach = frame.ep, frame.o
            self.offset = frame.o if self.offset is None else self.offset
        elif frame.t == "gap":
            self.gaps += 1
        elif frame.t == "err":
            raise ConnectionResetError(frame.d)  # it reconnects and asks again
        if not self.live and self.reach is not None and (self.offset or 0) >= self.reach:
            self.live = True
            self.times.append(time.monotonic())
            self.waits.append(self.times[-1] - self.opened)

    def _count(self, data: str) -> None:
        number = int(data[2:10])
        if number < self.next:
            self.repeated += 1
            return
        self.missing += number - self.next
        self.next = number + 1


class SubscriberPool:
    """All subscribers. Nothing is read outside `run`, so it must be called often enough."""

    def __init__(self, endpoint: Endpoint, channels: Sequence[str]) -> None:
        _allow_files(len(channels) + _OWN_FILES)
        self.subscribers = [Subscriber(channel) for channel in channels]
        self._endpoint = endpoint
        self._epoll = select.epoll()
        self._by_file: dict[int, Subscriber] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._again: list[tuple[float, int, Subscriber]] = []  # a heap: when, a number that breaks ties, who
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for subscriber in self.subscribers:
            if subscriber.connection is not None:
                subscriber.connection.close()
        self._epoll.close()

    @property
    def all_live(self) -> bool:
        """Whether every subscriber is connected and has its history."""
        return all(each.live for each in self.subscribers)

    def has_everything(self, expected: int) -> bool:
        """Whether every subscriber is live and has got as far as message number `expected`."""
        return all(each.live and each.next == expected for each in self.subscribers)

    def watch(self, file: socket.socket, on_readable: Callable[[], None]) -> None:
        """Serve another socket in the same loop."""
        self._others[file.fileno()] = on_readable
        self._epoll.register(file, select.EPOLLIN)

    def connect(self, subscribers: Sequence[Subscriber]) -> None:
        for subscriber in subscribers:
            self._open(subscriber)

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Serve all subscribers for `seconds` seconds, or until `done`; returns whether it is done."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= deadline:
                return False
            self._turn()
        return True

    def _turn(self) -> None:
        end = time.monotonic() + _TICK_SECONDS
        while (now := time.monotonic()) < end:
            while self._again and self._again[0][0] <= now:
                self._open(heapq.heappop(self._again)[2])
            for file, event in self._epoll.poll(_TICK_SECONDS, _EVENTS):
                if file in self._others:
                    self._others[file]()
                elif (subscriber := self._by_file.get(file)) is not None:
                    self._serve(subscriber, event)

    def _open(self, subscriber: Subscriber) -> None:
        subscriber.opened = time.monotonic()
        connection = subscriber.connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(("127.0.0.1", self._endpoint.port))
        subscriber.reader, subscriber.rest, subscriber.live, subscriber.reach = None, b"", False, None
        self._by_file[connection.fileno()] = subscriber
        self._epoll.register(connection, select.EPOLLOUT)

    def _serve(self, subscriber: Subscriber, event: int) -> None:
        assert subscriber.connection is not None
        try:
            if event & select.EPOLLOUT:
                subscriber.connection.send(upgrade_request(self._endpoint))
                self._epoll.modify(subscriber.connection, select.EPOLLIN)
                return
            data = subscriber.connection.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            self._take(subscriber, data)
        except ConnectionError:
            self._lose(subscriber)

    def _take(self, subscriber: Subscriber, data: bytes) -> None:
        if subscriber.reader is None:
            head, end, data = (subscriber.rest + data).partition(b"\r\n\r\n")
            if not end:
                subscriber.rest = head
                return
            if b" 101 " not in head[:16]:
                raise BenchError(f"the handshake was refused: {head[:80]!r}")
            subscriber.reader = FrameReader(_LARGEST, from_client=False)
            send_message(subscriber.connection, Opcode.TEXT, encode_json(subscriber.subscription()))
        for message in subscriber.reader.feed(data):
            if message.opcode is Opcode.TEXT:
                subscriber.take(_decode(message.payload))
            elif message.opcode is Opcode.PING:
                send_message(subscriber.connection, Opcode.PONG, message.payload)

    def cut(self, subscriber: Subscriber, away: float) -> None:
        """Reset a subscriber's connection, as a lost network does; it comes back after `away` seconds."""
        if subscriber.connection is not None and subscriber.connection.fileno() in self._by_file:
            subscriber.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._lose(subscriber, away)

    def _lose(self, subscriber: Subscriber, away: float = _AGAIN_SECONDS) -> None:
        assert subscriber.connection is not None
        del self._by_file[subscriber.connection.fileno()]
        subscriber.connection.close()
        subscriber.live = False
        heapq.heappush(self._again, (time.monotonic() + away, next(self._numbers), subscriber))


def send_message(connection: socket.socket | None, opcode: Opcode, payload: bytes) -> None:
    """Send one small message."""
    assert connection is not None
    connection.send(encode_masked_frame(opcode, payload, _MASK))


def upgrade_request(endpoint: Endpoint, subprotocol: str = "fanline.v1.json") -> bytes:
    """The opening handshake."""
    return (
        f"GET {endpoint.path} HTTP/1.1\r\nHost: 127.0.0.1:{endpoint.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    ).encode()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} open files are needed, but this system allows {hard}: take fewer --subscribers")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
