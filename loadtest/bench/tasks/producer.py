"""The producer of the task bench: publishes a script at its times, and answers the calls of viewers."""

import select
import socket
import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from fanline.loadtest.bench.tasks.script import ScriptedEvent
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import PING, PONG, Login, hello, publish, subscribe
from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from fanline.protocol.nats.parser import NatsMessage, Parser, Reply
from fanline.protocol.nats.replies import ServerInfo
from fanline.protocol.nats.subjects import Direction, to_subject
from fanline.protocol.tasks.events import TaskEvent

_READ_BYTES = 1 << 20
_TIMEOUT = 10.0


class ScriptedProducer:
    """One task's connection to NATS."""

    def __init__(self, channel: str, url: str, login: Login) -> None:
        where = parse_url(url)
        self.calls: list[dict[str, Any]] = []
        """The calls of viewers, oldest first."""
        self._channel = channel
        self._subject = to_subject(channel)
        self._published = 0
        self._parser = Parser()
        self._unanswered = 1  # pings of ours: that of the login
        self._socket = socket.create_connection((where.host, where.port), _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = hello(ServerInfo(), login, name="bench", tls=False)
        self._socket.sendall(greeting + subscribe(to_subject(channel, Direction.CTL), 1))
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def play(self, events: Sequence[ScriptedEvent], begun: float) -> None:
        """Publish each event at its time, counted from `begun` on the monotonic clock, and answer calls meanwhile."""
        for each in events:
            self.serve_until(begun + each.at)
            self._publish(each.event, each.data)
        self.flush()

    def serve_until(self, moment: float) -> None:
        """Answer calls until a time of the monotonic clock."""
        while select.select([self._socket], [], [], max(0.0, moment - time.monotonic()))[0]:
            self._take()

    def flush(self) -> None:
        """Return when NATS has accepted everything published so far."""
        self._unanswered += 1
        self._socket.sendall(PING)
        while self._unanswered:
            self._take()

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        if event == TaskEvent.OUTPUT:
            data = {"lines": [_line(number) for number in data["lines"]]}
        self._published += 1
        name = f"bench-{self._published}"
        envelope = Envelope(id=name, event=event, data=data, time=time.time_ns() // 1_000_000)
        headers = {MESSAGE_ID: producer_store_id(self._channel, name)}
        self._socket.sendall(publish(self._subject, encode_json(envelope), headers))

    def _take(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("NATS closed the producer's connection")
        for one in self._parser.feed(data):
            if isinstance(one, NatsMessage):
                self._answer(one)
            else:
                self._heed(one)

    def _heed(self, reply: Reply) -> None:
        if reply.verb == "-ERR":
            raise ConnectionResetError(f"NATS refused: {reply.detail}")
        if reply.verb == "PING":
            self._socket.sendall(PONG)
        self._unanswered -= reply.verb == "PONG"

    def _answer(self, message: NatsMessage) -> None:
        asked = msgspec.json.decode(message.payload)
        if asked["t"] == "call":  # not a ping
            self.calls.append(asked)
        self._socket.sendall(publish(message.reply, b'{"v":1,"t":"ok"}'))


def _line(number: int) -> str:
    """An output line with the stamp of native/common.h."""
    return f"@@{number:08d}{time.monotonic_ns() // 1000:016d} compiling src/module_{number}.c"
