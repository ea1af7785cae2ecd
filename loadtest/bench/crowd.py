"""A crowd of subscribers of durable channels in one epoll loop: each that is cut off comes back at once, and resumes.

It checks what it gets by the numbers in the messages themselves (the stamp of common.h), not by the offsets it is told.
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


class Place(NamedTuple):
    """Where the server listens."""

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
        "epoch",
        "gaps",
        "link",
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
        self.link: socket.socket | None = None
        self.reader: FrameReader | None = None  # once the handshake is done
        self.rest = b""  # of the answer to the handshake
        self.offset: int | None = None
        self.epoch = ""
        self.reach: int | None = None  # offset up to which the history goes, once it is answered
        self.live = False
        self.next = self.missing = self.repeated = self.gaps = 0
        self.opened = 0.0
        self.waits: list[float] = []
        """Seconds from each attempt to connect until it was live with everything it had missed."""
        self.times: list[float] = []
        """When it was live, seconds of the monotonic clock, once a connection."""

    def sub(self) -> Envelope:
        """The command that goes on from where it is."""
        return Envelope(MessageType.SUB, channel=self.channel, id="sub", offset=self.offset, epoch=self.epoch or None)

    def take(self, frame: _Frame) -> None:
        """Note what the server says."""
        if frame.t == "pub":
            self._count(str(frame.d))
            self.offset = frame.o
        elif frame.t == "ok":
            self.epoch, self.reach = frame.ep, frame.o
            self.offset = frame.o if self.offset is None else self.offset
        elif frame.t == "gap":
            self.gaps += 1
        elif frame.t == "err":
            raise ConnectionResetError(frame.d)  # comes back and asks again
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


class Crowd:
    """All subscribers. Call `run` often enough: nothing is read outside of it."""

    def __init__(self, place: Place, channels: Sequence[str]) -> None:
        _allow_files(len(channels) + _OWN_FILES)
        self.subscribers = [Subscriber(channel) for channel in channels]
        self._place = place
        self._epoll = select.epoll()
        self._by_file: dict[int, Subscriber] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._again: list[tuple[float, int, Subscriber]] = []  # a heap: when, a number that tells them apart, who
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for subscriber in self.subscribers:
            if subscriber.link is not None:
                subscriber.link.close()
        self._epoll.close()

    def watch(self, file: socket.socket, on_readable: Callable[[], None]) -> None:
        """Serve another socket in the same loop."""
        self._others[file.fileno()] = on_readable
        self._epoll.register(file, select.EPOLLIN)

    def connect(self, subscribers: Sequence[Subscriber]) -> None:
        for subscriber in subscribers:
            self._open(subscriber)

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Serve everybody for so long, or until it is done; whether it is."""
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
        link = subscriber.link = socket.socket()
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.connect_ex(("127.0.0.1", self._place.port))
        subscriber.reader, subscriber.rest, subscriber.live, subscriber.reach = None, b"", False, None
        self._by_file[link.fileno()] = subscriber
        self._epoll.register(link, select.EPOLLOUT)

    def _serve(self, subscriber: Subscriber, event: int) -> None:
        assert subscriber.link is not None
        try:
            if event & select.EPOLLOUT:
                subscriber.link.send(upgrade(self._place))
                self._epoll.modify(subscriber.link, select.EPOLLIN)
                return
            data = subscriber.link.recv(_READ_BYTES)
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
            say(subscriber.link, Opcode.TEXT, encode_json(subscriber.sub()))
        for message in subscriber.reader.feed(data):
            if message.opcode is Opcode.TEXT:
                subscriber.take(_decode(message.payload))
            elif message.opcode is Opcode.PING:
                say(subscriber.link, Opcode.PONG, message.payload)

    def cut(self, subscriber: Subscriber, away: float) -> None:
        """Reset a subscriber's connection, as a lost network does; it comes back after so many seconds."""
        if subscriber.link is not None and subscriber.link.fileno() in self._by_file:
            subscriber.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._lose(subscriber, away)

    def _lose(self, subscriber: Subscriber, away: float = _AGAIN_SECONDS) -> None:
        assert subscriber.link is not None
        del self._by_file[subscriber.link.fileno()]
        subscriber.link.close()
        subscriber.live = False
        heapq.heappush(self._again, (time.monotonic() + away, next(self._numbers), subscriber))


def say(link: socket.socket | None, opcode: Opcode, payload: bytes) -> None:
    """Send one small message."""
    assert link is not None
    link.send(encode_masked_frame(opcode, payload, _MASK))


def upgrade(place: Place) -> bytes:
    """The opening handshake."""
    return (
        f"GET {place.path} HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: fanline.v1.json\r\n\r\n"
    ).encode()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} open files are needed, and this system allows {hard}: take fewer --subscribers")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
