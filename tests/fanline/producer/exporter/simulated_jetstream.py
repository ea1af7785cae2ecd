"""A JetStream that refuses, delays and forgets as a script says, with an exporter; the clock is a number."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

from fanline.producer.checks import TaskSettings
from fanline.producer.exporter.task_publisher import TaskPublisher
from fanline.producer.run.producer import Producer
from tests.fanline.nats.played import ACK, PlayedNats, Said

PUB = "fanline.pub.task.job"
START = 1e6
DUPLICATE_SECONDS = 120.0
"""JetStream's default: for this long, a message ID is stored only once."""
DUPLICATE = b'{"stream":"FANLINE_task","seq":1,"duplicate":true}'
REFUSED = b'{"error":{"code":503,"description":"insufficient resources"}}'
_NEVER = float("inf")
_CLOCKS = ("fanline.producer.run.producer.time", "fanline.producer.exporter.task_publisher.time")


class Fate(NamedTuple):
    """What becomes of one message that is sent. Times in seconds after that; infinity: never."""

    stored: float = 0.0
    answered: float = 0.0
    refused: bool = False
    """It is answered with a 503, and not stored."""


FINE = Fate()


class Simulation:
    """One task on one simulated JetStream. `fate` decides about each message that is sent, by its number."""

    def __init__(self, fate: Callable[[int], Fate]) -> None:
        self.now = START
        self.stored: list[bytes] = []
        """The payloads in the stream."""
        self.sent: list[Said] = []
        self.producer = Producer(TaskSettings("job", "the job", None, 1, 1e7, None, None, 5.0))
        self._fate = fate
        self._nats = PlayedNats()
        self._stored_at: dict[bytes, float] = {}
        self._ahead: list[tuple[float, int, Callable[[], None]]] = []  # what happens, by its time
        self._order = itertools.count()
        nats = self._nats.requests
        self.publisher = TaskPublisher(self.producer, None, nats, lambda _, __: None, lambda _, __: None)
        self.producer.attach(self.publisher.wake)
        self.connect()

    def connect(self) -> None:
        """Begin a connection; the answers on the last one are lost, unless they are still to come."""
        self._nats.disconnect()
        self._nats.connect()
        self.publisher.connected(self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self._step()
            self.now = min(end, self.publisher.due, self._ahead[0][0] if self._ahead else _NEVER)
            while self._ahead and self._ahead[0][0] <= self.now:
                heapq.heappop(self._ahead)[2]()
            if self.now >= end:
                self._step()
                return

    def finish(self) -> None:
        """Let time pass until everything is acknowledged, and whatever is still on its way is stored."""
        for _ in range(100_000):
            if self.publisher.finished and not self._ahead:
                return
            ahead = self._ahead[0][0] if self._ahead else _NEVER
            self.advance(max(0.0, min(self.publisher.due, ahead) - self.now))
        raise AssertionError("the exporter does not come to an end")

    def give_up(self) -> None:
        """The task has lingered long enough."""
        self.publisher.give_up()
        self.advance(0.0)

    def _step(self) -> None:
        if self.publisher.due <= self.now:
            self.publisher.step(self.now)
        for said in self._nats.said(PUB):
            self._send(said, self._fate(len(self.sent)))

    def _send(self, said: Said, fate: Fate) -> None:
        self.sent.append(said)
        if fate.refused:
            self._later(fate.answered, lambda: self._nats.answer(said, REFUSED))
        else:
            self._later(fate.stored, lambda: self._store(said, fate))

    def _store(self, said: Said, fate: Fate) -> None:
        message_id = said.headers.partition(b"Nats-Msg-Id: ")[2].partition(b"\r\n")[0]
        known = self.now - self._stored_at.get(message_id, -_NEVER) < DUPLICATE_SECONDS
        if not known:
            self._stored_at[message_id] = self.now
            self.stored.append(said.payload)
        self._later(fate.answered, lambda: self._nats.answer(said, DUPLICATE if known else ACK))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if seconds < _NEVER:
            heapq.heappush(self._ahead, (self.now + seconds, next(self._order), call))


@contextmanager
def simulated(fate: Callable[[int], Fate] = lambda number: FINE) -> Iterator[Simulation]:
    """A simulation whose job and exporter have its clock."""
    clock = SimpleNamespace(monotonic=lambda: START, time=lambda: START)
    with patch(_CLOCKS[0], clock), patch(_CLOCKS[1], clock):
        simulation = Simulation(fate)
        clock.monotonic = clock.time = lambda: simulation.now
        yield simulation
