"""All tasks of one exporter: which of them has something to do when, how long each lingers, what is said of an outage.

Without I/O: the exporter's loop calls it, in its thread, with the time.
"""

import logging
import math
from collections.abc import Callable

from fanline.nats.loop import STABLE_SECONDS
from fanline.nats.requests import NatsRequests
from fanline.producer.exporter.task_publisher import Publish, TaskPublisher
from fanline.producer.producer import Producer
from fanline.protocol.nats.replies import Complaint

NEVER_REACHED_SECONDS = 0.5
"""How long a task lingers if no connection has ever been made: no need to wait for a server that was never there."""
FIRST_ATTEMPT_SECONDS = 2.0
"""The same while the first attempt is under way: a name, TLS and a login far away take their time."""
_NEVER = math.inf
_log = logging.getLogger("fanline")


class TaskPublishers:
    """The user of a NatsLoop. `reply` publishes the reply to a call, `on_done` is called when a task is done with."""

    def __init__(self, requests: NatsRequests, reply: Publish, on_done: Callable[[Producer], None]) -> None:
        self.ever_connected = False
        self._requests = requests
        self._reply = reply
        self._on_done = on_done
        self._publishers: dict[Producer, TaskPublisher] = {}
        self._lingering: dict[TaskPublisher, float] = {}  # the time at which each of them gives up
        self._connected_at: float | None = None
        self._outage: str | None = None  # why there is no connection; None also before the first attempt
        self._warned = set[str]()  # the reasons, in this outage

    def linger_seconds(self, producer: Producer) -> float:
        """How long after its end the events of a task may take to be stored."""
        linger = producer.settings.linger
        if self.ever_connected:
            return linger
        return min(linger, FIRST_ATTEMPT_SECONDS if self._outage is None else NEVER_REACHED_SECONDS)

    # --- tasks ---------------------------------------------------------------------------------------------------

    def add(self, producer: Producer) -> None:
        earlier = [publisher for other, publisher in self._publishers.items() if other.id == producer.id]
        previous = earlier[-1] if earlier else None
        publisher = TaskPublisher(producer, previous, self._requests, self._reply, self._warn)
        self._publishers[producer] = publisher
        self.wake(producer)

    def wake(self, producer: Producer) -> None:
        """The job has reported something."""
        publisher = self._publishers.get(producer)
        if publisher is not None:
            publisher.wake()

    def abandon_all(self) -> None:
        """The program ends: what is buffered is sent, without a final event."""
        for producer in list(self._publishers):
            producer.abandon()
            self.wake(producer)

    # --- for the loop --------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        if self._warned:
            _log.info("connected to NATS again: task events are being published")
        self._outage, self._connected_at, self.ever_connected = None, now, True
        for publisher in self._publishers.values():
            publisher.connected(now)

    def lost(self, why: str | None, now: float) -> None:
        since, self._connected_at = self._connected_at, None
        if since is not None and now - since > STABLE_SECONDS:
            self._warned.clear()
        if why is None:
            return
        self._outage = why
        for publisher, end in self._lingering.items():
            publisher.producer.settle()
            self._lingering[publisher] = min(end, now + self.linger_seconds(publisher.producer))
        self._warn(f"task events are waiting for NATS: {why}", "outage")

    def denied(self, complaint: Complaint) -> None:
        for publisher in self._publishers.values():
            publisher.denied(complaint)
        self._warn(complaint.text, complaint.text)

    def step(self, now: float) -> float:
        while ready := [publisher for publisher in self._publishers.values() if publisher.due <= now]:
            for publisher in ready:
                self._step(publisher, now)
        for publisher, end in list(self._lingering.items()):
            if now >= end:
                self._give_up(publisher)
        return min((*(each.due for each in self._publishers.values()), *self._lingering.values()), default=_NEVER)

    def _step(self, publisher: TaskPublisher, now: float) -> None:
        producer = publisher.producer
        if producer.ended is not None and publisher not in self._lingering:
            self._lingering[publisher] = now + self.linger_seconds(producer)
            if self._outage is not None or publisher.troubled:
                producer.settle()
        if self._connected_at is None:
            publisher.due = _NEVER
        else:
            publisher.step(now)
        if publisher.finished:
            self._remove(publisher)

    # --- the end of a task ---------------------------------------------------------------------------------------

    def _give_up(self, publisher: TaskPublisher) -> None:
        """What is not stored in time after the end of the task may be lost."""
        seconds = self.linger_seconds(publisher.producer)
        events, lines = publisher.give_up()
        if events or lines:
            _log.warning(
                "task %s: %d events and %d more lines of output were not stored within %g seconds of its end "
                "and may be lost%s",
                publisher.producer.id,
                events,
                lines,
                seconds,
                f" ({self._outage})" if self._outage else "",
            )
        self._remove(publisher)

    def _remove(self, publisher: TaskPublisher) -> None:
        producer = publisher.producer
        del self._publishers[producer]
        self._lingering.pop(publisher, None)
        for other, waiting in self._publishers.items():  # for the end of this one, perhaps
            if other.id == producer.id:
                waiting.wake()
        producer.settle()
        self._on_done(producer)

    def _warn(self, text: str, reason: str) -> None:
        """Log a warning, once per outage for each reason."""
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warning("%s", text)
