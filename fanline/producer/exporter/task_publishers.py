"""All tasks of one exporter: which of them has something to do when, how long each is kept, what is said of an outage.

| a task       | its job                                 | and then                                                  |
|--------------|-----------------------------------------|-----------------------------------------------------------|
| runs         | works                                   | it has ended                                              |
| lingers      | waits until everything is stored        | it is stored; after `linger`, or in an outage, it is kept |
| is kept      | has gone on                             | it is stored, or given up when its time is over           |

While one is kept, NATS does not store, or not as fast as tasks end. Then no other job waits, either: an outage costs a
worker one wait, and not one for each of its tasks. What is kept is bounded (kept_tasks.py).

Without I/O: the exporter's loop calls it, in its thread, with the time.
"""

import logging
import math
from collections.abc import Callable

from fanline.base.counted_warnings import CountedWarnings
from fanline.nats.loop import STABLE_SECONDS
from fanline.nats.requests import NatsRequests
from fanline.producer.exporter.kept_tasks import MAX_BYTES, MAX_TASKS, KeptTasks
from fanline.producer.exporter.task_publisher import Publish, TaskPublisher
from fanline.producer.run.producer import Producer
from fanline.protocol.nats.replies import Complaint

NEVER_REACHED_SECONDS = 0.5
"""How long a task lingers if no connection has ever been made: no need to wait for a server that was never there."""
FIRST_ATTEMPT_SECONDS = 2.0
"""The same while the first attempt is under way: a name, TLS and a login far away take their time."""
REST_SECONDS = 1.0
"""How long the connection is kept after the last task: a worker of a queue runs one short task after the other, and a
thread and a connection for each would cost more than all that is sent.
"""
LOSS_SECONDS = 60.0
"""Of all tasks whose events may be lost, one is logged in this time, and the others are counted."""
_NEVER = math.inf
_log = logging.getLogger("fanline")


class TaskPublishers:
    """The user of a NatsLoop. `reply` publishes the reply to a call, `on_done` is called when a task is done with,
    `on_rested` when there has been none for REST_SECONDS.
    """

    def __init__(
        self,
        requests: NatsRequests,
        reply: Publish,
        on_done: Callable[[Producer], None],
        on_rested: Callable[[], None],
    ) -> None:
        self.ever_connected = False
        self._requests = requests
        self._reply = reply
        self._on_done = on_done
        self._on_rested = on_rested
        self._rest_end: float | None = None  # while there is no task
        self._ending = False  # the program is
        self._publishers: dict[Producer, TaskPublisher] = {}  # all but those that are kept and wait for their turn
        self._runs: dict[str, list[TaskPublisher]] = {}  # of each task, oldest first
        self._ended: dict[TaskPublisher, float] = {}  # when that was noticed
        self._lingering: dict[TaskPublisher, float] = {}  # until when their jobs wait
        self._kept = KeptTasks()
        self._expiry = _NEVER  # no task is given up before that
        self._connected_at: float | None = None
        self._outage: str | None = None  # why there is no connection; None also before the first attempt
        self._warned = set[str]()  # the reasons, in this outage
        self._losses = CountedWarnings(LOSS_SECONDS, "more tasks of which events may be lost")

    def linger_seconds(self, producer: Producer) -> float:
        """How long after its end a task is waited for: by its job, and by the end of the program."""
        linger = producer.settings.linger
        if self.ever_connected:
            return linger
        return min(linger, FIRST_ATTEMPT_SECONDS if self._outage is None else NEVER_REACHED_SECONDS)

    # --- tasks ---------------------------------------------------------------------------------------------------

    def add(self, producer: Producer) -> None:
        runs = self._runs.setdefault(producer.id, [])
        publisher = TaskPublisher(producer, runs[-1] if runs else None, self._requests, self._reply, self._warn)
        runs.append(publisher)
        self._publishers[producer] = publisher
        self._rest_end = None
        self.wake(producer)

    def wake(self, producer: Producer) -> None:
        """The job has reported something."""
        publisher = self._publishers.get(producer)
        if publisher is not None:
            publisher.wake()

    def abandon_all(self) -> None:
        """The program ends: what is buffered is sent, without a final event, and then there is no rest."""
        self._ending, self._expiry = True, -_NEVER
        for producer in list(self._publishers):
            producer.abandon()
            self.wake(producer)

    # --- for the loop --------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        if self._warned:
            _log.info("connected to NATS again: task events are being published")
        self._losses.finish()
        self._outage, self._connected_at, self.ever_connected = None, now, True
        for publisher in self._publishers.values():
            publisher.connected(now)

    def lost(self, why: str | None, now: float) -> None:
        since, self._connected_at = self._connected_at, None
        if since is not None and now - since > STABLE_SECONDS:
            self._warned.clear()
        if why is None:
            return
        self._outage, self._expiry = why, -_NEVER  # those that were never reached are given up earlier
        for producer in self._publishers:
            producer.say_waiting(why)
        for publisher in list(self._lingering):
            self._keep(publisher)
        if self._publishers:
            self._warn(f"task events are waiting for NATS: {why}", "outage")

    def denied(self, complaint: Complaint) -> None:
        for publisher in self._publishers.values():
            publisher.denied(complaint)
        self._warn(complaint.text, complaint.text)

    def step(self, now: float) -> float:
        while ready := self._ready(now):
            for publisher in ready:
                self._step(publisher, now)
        for publisher, end in list(self._lingering.items()):
            if now >= end or publisher.troubled:
                self._keep(publisher)
        if now >= self._expiry:
            self._give_up_late(now)
        if not self._runs:
            return self._rest(now)
        return min(*(each.due for each in self._publishers.values()), *self._lingering.values(), self._expiry, _NEVER)

    def _ready(self, now: float) -> list[TaskPublisher]:
        for publisher in self._kept.next_turns():
            self._publishers[publisher.producer] = publisher
            if self._connected_at is not None:
                publisher.connected(now)
        return [publisher for publisher in self._publishers.values() if publisher.due <= now]

    def _rest(self, now: float) -> float:
        """There is no task. Returns when the rest ends."""
        if self._rest_end is None:
            self._rest_end = now + REST_SECONDS
        if self._ending or now >= self._rest_end:
            self._losses.finish()
            self._on_rested()
        return self._rest_end

    def _step(self, publisher: TaskPublisher, now: float) -> None:
        producer = publisher.producer
        if producer.ended is not None and publisher not in self._ended:
            self._end(publisher, now)
        if producer not in self._publishers:
            return  # it is kept until it has its turn, or was given up
        if self._connected_at is None:
            publisher.due = _NEVER
            if self._outage is not None:
                producer.say_waiting(self._outage)
        else:
            publisher.step(now)
        if publisher.finished:
            self._remove(publisher)

    # --- the end of a task ---------------------------------------------------------------------------------------

    def _end(self, publisher: TaskPublisher, now: float) -> None:
        self._ended[publisher] = now
        self._expiry = min(self._expiry, self._deadline(publisher))
        self._lingering[publisher] = now + self.linger_seconds(publisher.producer)
        if self._outage is not None or publisher.troubled or self._kept:
            self._keep(publisher)

    def _deadline(self, publisher: TaskPublisher) -> float:
        """When a task that has ended is given up."""
        seconds = self.linger_seconds(publisher.producer)
        return self._ended[publisher] + (seconds if self._ending else max(seconds, publisher.producer.keep))

    def _keep(self, publisher: TaskPublisher) -> None:
        """Let the job go on."""
        del self._lingering[publisher]
        publisher.producer.settle()
        if not self._kept.add(publisher):
            del self._publishers[publisher.producer]
        if lines := self._kept.trim():
            self._losses.warn(
                f"{lines} lines of output of tasks that have ended were dropped: "
                f"at most {MAX_BYTES >> 20} MiB of their events wait for NATS"
            )
        while (excess := self._kept.excess) is not None:
            self._give_up(excess, f"since at most {MAX_TASKS:,} tasks that have ended wait for NATS")

    def _give_up_late(self, now: float) -> None:
        """What is not stored in time after the end of the task may be lost."""
        for publisher, ended in list(self._ended.items()):
            deadline = self._deadline(publisher)
            if now >= deadline:
                self._give_up(publisher, f"within {deadline - ended:g} seconds of its end")
        self._expiry = min(map(self._deadline, self._ended), default=_NEVER)

    def _give_up(self, publisher: TaskPublisher, why: str) -> None:
        events, lines = publisher.give_up()
        if events or lines:
            outage = f" ({self._outage})" if self._outage else ""
            self._losses.warn(
                f"task {publisher.producer.id}: {events} events and {lines} more lines of output were not stored {why} "
                f"and may be lost{outage}"
            )
        self._remove(publisher)

    def _remove(self, publisher: TaskPublisher) -> None:
        """Its events are stored, or given up."""
        producer = publisher.producer
        self._publishers.pop(producer, None)
        self._ended.pop(publisher, None)
        self._lingering.pop(publisher, None)
        self._kept.remove(publisher)
        runs = self._runs[producer.id]
        runs.remove(publisher)
        if not runs:
            del self._runs[producer.id]
        for later in runs:  # one waits for the end of this one, perhaps
            later.wake()
        producer.settle()
        self._on_done(producer)

    def _warn(self, text: str, reason: str) -> None:
        """Log a warning, once per outage for each reason."""
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warning("%s", text)
