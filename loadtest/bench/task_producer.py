"""The producer of the task bench: a script of events at their times, and answers to what viewers ask."""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import msgspec

from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.client_protocol import (
    PING,
    PONG,
    NatsMessage,
    Reply,
    connect_command,
    parse_url,
    publish_command,
    read_server,
    subscribe_command,
)
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id
from fanline.protocol.nats.subjects import to_subject

ASK = "deploy"
RESULT = {"artifacts": 3, "url": "build/42"}
_STAGES = 10
_READ_BYTES = 1 << 20
_TIMEOUT = 10.0


class Step(NamedTuple):
    """One event of the script, `at` so many seconds from the start."""

    at: float
    event: str
    data: dict[str, Any]


def script(progress: float, lines: float, seconds: float) -> list[Step]:
    """A task that runs for so long, with so many progress events and lines a second; in order.

    Between them it is paused twice, and asks a question.
    """
    return sorted(
        [
            Step(0.0, "task_started", {"title": "Build", "kind": "bench"}),
            Step(0.2 * seconds, "task_paused", {}),
            Step(0.25 * seconds, "task_resumed", {}),
            Step(0.5 * seconds, "task_confirmation_required", {"ask": ASK, "text": "Deploy?"}),
            Step(0.75 * seconds, "task_paused", {}),
            Step(0.8 * seconds, "task_resumed", {}),
            *_progress(round(progress * seconds), seconds),
            *_lines(round(lines * seconds), seconds),
            Step(seconds, "task_completed", {"result": RESULT}),
        ],
        key=lambda step: step.at,
    )


def _progress(count: int, seconds: float) -> Iterator[Step]:
    for number in range(1, count + 1):
        data = {"done": number, "total": count, "stage": f"stage {number * _STAGES // (count + 1)}"}
        yield Step((number - 0.5) / count * seconds, "task_progress", data)


def _lines(count: int, seconds: float) -> Iterator[Step]:
    """The line itself is made when it is said: it holds the time."""
    for number in range(count):
        yield Step((number + 0.5) / count * seconds, "task_output", {"lines": [number]})


class Producer:
    """One task's connection to NATS."""

    def __init__(self, channel: str, url: str, token: str) -> None:
        where = parse_url(url)
        self.calls: list[dict[str, Any]] = []
        """What viewers asked, oldest first."""
        self._channel = channel
        self._subject = to_subject(channel)
        self._said = 0
        self._rest = b""
        self._flushed = False
        self._socket = socket.create_connection((where.host, where.port), _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        control = self._subject.replace("fanline.pub.", "fanline.ctl.", 1)
        self._socket.sendall(connect_command(token=token) + subscribe_command(control, 1))
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def play(self, steps: Sequence[Step], begun: float) -> None:
        """Say everything at its time, counted from `begun` on the monotonic clock, and answer meanwhile."""
        for step in steps:
            self.serve_until(begun + step.at)
            self._say(step.event, step.data)
        self.flush()

    def serve_until(self, moment: float) -> None:
        """Answer calls until a time of the monotonic clock."""
        while select.select([self._socket], [], [], max(0.0, moment - time.monotonic()))[0]:
            self._take()

    def flush(self) -> None:
        """Return when NATS has taken everything said so far."""
        self._flushed = False
        self._socket.sendall(PING)
        while not self._flushed:
            self._take()

    def _say(self, event: str, data: dict[str, Any]) -> None:
        if event == "task_output":
            data = {"lines": [_line(number) for number in data["lines"]]}
        self._said += 1
        name = f"bench-{self._said}"
        envelope = Envelope(id=name, event=event, data=data, time=time.time_ns() // 1_000_000)
        headers = {MESSAGE_ID: deduplication_id(self._channel, name)}
        self._socket.sendall(publish_command(self._subject, encode_json(envelope), headers))

    def _take(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("NATS closed the producer's connection")
        found, self._rest = read_server(self._rest + data)
        for one in found:
            if isinstance(one, NatsMessage):
                self._answer(one)
            else:
                self._heed(one)

    def _heed(self, reply: Reply) -> None:
        if reply.verb == "-ERR":
            raise ConnectionResetError(f"NATS refused: {reply.detail}")
        if reply.verb == "PING":
            self._socket.sendall(PONG)
        self._flushed = self._flushed or reply.verb == "PONG"

    def _answer(self, message: NatsMessage) -> None:
        asked = msgspec.json.decode(message.payload)
        if asked["t"] == "call":  # a ping needs no answer
            self.calls.append(asked)
            self._socket.sendall(publish_command(message.reply, b'{"v":1,"t":"ok"}'))


def _line(number: int) -> str:
    """An output line with the stamp of common.h."""
    return f"@@{number:08d}{time.monotonic_ns() // 1000:016d} compiling src/module_{number}.c"
