"""The exporter: one thread per process and NATS, which publishes the events of its tasks and receives their calls.

It starts with the first task, and stops when there has been none for REST_SECONDS. A job only ever adds to a buffer, so
a slow network does not hold up the job, and a busy event loop of the job does not hold up the exporter.
"""

import logging
import threading
from concurrent.futures import wait
from contextlib import suppress

from fanline.nats.thread import NatsThread, lock
from fanline.producer.exporter.task_publishers import TaskPublishers
from fanline.producer.run.producer import Producer
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError

_LOOK_SECONDS = 0.1
_log = logging.getLogger("fanline")


def export(producer: Producer) -> None:
    """Publish the events of this producer from now on, until it has ended."""
    try:
        with lock():
            exporter = Exporter.current(producer.settings.nats)
            exporter.add(producer)
        exporter.start()
    except OSError as error:  # too many open files
        _log.error("the events of task %s are not published: %s", producer.id, error)
        producer.settle()


class Exporter(NatsThread):
    """Publishes for all tasks of this process that use one NATS; None: that of the local server."""

    name = "fanline exporter"
    work = "the events of this process's tasks"

    def __init__(self, nats: NatsOptions | None) -> None:
        super().__init__(nats)
        self._producers: set[Producer] = set()  # guarded by the lock
        self.user = self._tasks = TaskPublishers(self.loop.requests, self._reply, self._discard, self._stop_if_unused)

    def add(self, producer: Producer) -> None:
        """Publish for this producer too. The caller holds the lock, so that the exporter does not stop meanwhile."""
        self._producers.add(producer)
        producer.attach(lambda: self.loop.call_soon(self._tasks.wake, producer))
        self.loop.call_soon(self._tasks.add, producer)

    def finishing(self) -> float:
        """Store what is buffered, for as long as the tasks linger."""
        with lock():
            linger = max((self._tasks.linger_seconds(producer) for producer in self._producers), default=0.0)
        self.loop.call_soon(self._tasks.abandon_all)
        return linger + 1.0

    def wait_for_jobs(self) -> None:
        here = threading.current_thread()
        with lock():
            producers = list(self._producers)
        for producer in producers:
            thread = producer.thread
            # Not for the thread's end: a pool's goes on, until the process ends.
            while thread is not here and not thread.daemon and thread.is_alive() and not producer.settled.done():
                wait([producer.settled], _LOOK_SECONDS)

    def ended(self) -> None:
        """No job need wait any more."""
        with lock():
            producers, self._producers = self._producers, set()
        for producer in producers:
            producer.settle()

    # --- in the thread -------------------------------------------------------------------------------------------

    def _reply(self, subject: str, payload: bytes) -> None:
        """Publish the reply to a call. From any thread."""
        self.loop.call_soon(self._publish, subject, payload)

    def _publish(self, subject: str, payload: bytes) -> None:
        with suppress(NatsError):  # the caller made up an impossible subject for its answer
            self.loop.requests.publish(subject, payload)

    def _discard(self, producer: Producer) -> None:
        """The task is done with."""
        with lock():
            self._producers.discard(producer)

    def _stop_if_unused(self) -> None:
        """Stop, unless there is a new task that the loop has not come to: the next one starts another exporter."""
        with lock():
            if self._producers:
                return
            self.unregister()
        self.loop.stop()
