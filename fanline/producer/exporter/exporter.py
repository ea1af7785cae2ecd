"""The exporter: one thread per process and NATS, which publishes the events of its tasks and receives their calls.

It starts with the first task and stops after the last. A job only ever adds to a buffer, so a slow network does not
hold up the job, and a busy event loop of the job does not hold up the exporter. A forked process starts its own.
"""

import atexit
import encodings.idna  # noqa: F401  # otherwise a thread imports it, and a process forked meanwhile gets half a module
import logging
import multiprocessing.util
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from fanline.backoff import Backoff
from fanline.errors import FanlineError
from fanline.local import find_server, nats_address
from fanline.nats.connection import open_nats
from fanline.producer.exporter.connection import ProducerConnection
from fanline.producer.exporter.task_publisher import TaskPublisher
from fanline.producer.producer import Producer
from fanline.protocol.nats.client_protocol import NatsAddress, NatsError, parse_url

STABLE_SECONDS = 5.0
"""After a connection that lasted longer than this, the next failure is an outage of its own."""
NEVER_REACHED_SECONDS = 0.5
"""How long a task lingers if no connection has ever been made: no need to wait for a server that was never there."""
_log = logging.getLogger("fanline")
_exporters: dict[str | None, "Exporter"] = {}
_lock = threading.Lock()  # guards _exporters, and which producers each of them has


def export(producer: Producer) -> None:
    """Publish the events of this producer from now on, until it has ended."""
    with _lock:
        exporter = _exporters.get(producer.settings.nats)
        if exporter is None or exporter.stopped:
            exporter = _exporters[producer.settings.nats] = Exporter(producer.settings.nats)
        exporter.add(producer)


class Exporter:
    """Publishes for all tasks of this process that use one NATS: the one at `nats`; None: that of the local server."""

    def __init__(self, nats: str | None) -> None:
        self._nats = nats
        self._producers: set[Producer] = set()  # guarded by _lock
        # Everything below belongs to the exporter's thread.
        self._publishers: dict[Producer, TaskPublisher] = {}
        self._lingering: set[TaskPublisher] = set()
        self._connection: ProducerConnection | None = None
        self._outage: str | None = None  # why there is no connection; None also before the first attempt
        self._warned = False
        self._ever_connected = False
        self.stopped = False
        """It publishes nothing any more, or never did."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fanline exporter", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads are possible, or the interpreter is shutting down
            self.stopped = True
            _log.error("the events of this process's tasks are not published: %s", error)
        else:
            self._ready.wait()

    # --- called from any thread ----------------------------------------------------------------------------------

    def add(self, producer: Producer) -> None:
        """Publish for this producer too. The caller holds the lock, so that the exporter does not stop meanwhile."""
        self._producers.add(producer)
        producer.attach(lambda: self._run_soon(self._wake, producer))
        self._run_soon(self._add_publisher, producer)
        if self.stopped:
            producer.settle()

    def reply(self, subject: str, payload: bytes) -> None:
        """Publish the reply to a call."""
        self._run_soon(self._publish, subject, payload)

    def finish(self) -> None:
        """The program ends: store what is buffered, for as long as the tasks linger."""
        with _lock:
            linger = max((self._linger_seconds(producer) for producer in self._producers), default=0.0)
        self._run_soon(self._abandon_all)
        if self._thread.is_alive():
            self._thread.join(linger + 1.0)

    def _linger_seconds(self, producer: Producer) -> float:
        linger = producer.settings.linger
        return linger if self._ever_connected else min(linger, NEVER_REACHED_SECONDS)

    def _run_soon(self, call: Callable[..., None], *args: object) -> None:
        """Call in the exporter's thread."""
        if self._token is None:  # the thread never started
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call, *args)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            trio.run(self._main)
        except Exception as error:  # noqa: BLE001  # a fault in here must not harm the job
            _log.error("the events of this process's tasks are no longer published: %r", error)
        finally:
            self.stopped = True
            self._ready.set()  # before taking the lock: the thread that holds it may be waiting for this
            with _lock:
                self._unregister()
                for producer in self._producers:
                    producer.settle()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._ready.set()
            await self._stay_connected()

    async def _stay_connected(self) -> None:
        backoff = Backoff(base=0.1, cap=5.0)
        while True:
            started = trio.current_time()
            try:
                async with open_nats(self._address()) as client:
                    await self._use(ProducerConnection(client))
            except (NatsError, FanlineError, OSError) as error:
                if self._outage is None and trio.current_time() - started > STABLE_SECONDS:
                    backoff.reset()
                    self._warned = False
                self._begin_outage(str(error))
            await trio.sleep(backoff.next_delay())

    def _address(self) -> NatsAddress:
        """Looked up for each connection: a server that was restarted has another port and token."""
        return nats_address(find_server()) if self._nats is None else parse_url(self._nats)

    async def _use(self, connection: ProducerConnection) -> None:
        """Publish over a connection until it is lost. Always raises NatsError."""
        reasons: list[NatsError] = []

        async def until_lost(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except NatsError as error:
                reasons.append(error)
                nursery.cancel_scope.cancel()

        self._end_outage()
        try:
            async with trio.open_nursery() as nursery:
                self._connection, self._connection_nursery = connection, nursery
                for work in (connection.read, connection.write, connection.watch):
                    nursery.start_soon(until_lost, work)
                for publisher in list(self._publishers.values()):
                    nursery.start_soon(self._run_publisher, publisher, connection)
        finally:
            self._connection = None
        raise reasons[0]

    async def _run_publisher(self, publisher: TaskPublisher, connection: ProducerConnection) -> None:
        await publisher.run(connection)
        if publisher.finished.is_set():
            self._remove(publisher)

    async def _linger(self, publisher: TaskPublisher) -> None:
        """Give up what is not stored in time after the end of the task."""
        seconds = self._linger_seconds(publisher.producer)
        with trio.move_on_after(seconds):
            await publisher.finished.wait()
            return
        events, lines = publisher.give_up()
        _log.warning(
            "task %s: %d events and %d lines of output could not be stored within %g seconds of its end and are lost%s",
            publisher.producer.id,
            events,
            lines,
            seconds,
            f" ({self._outage})" if self._outage else "",
        )
        self._remove(publisher)

    # --- sync, in the thread -------------------------------------------------------------------------------------

    def _add_publisher(self, producer: Producer) -> None:
        earlier = [publisher for other, publisher in self._publishers.items() if other.id == producer.id]
        publisher = TaskPublisher(producer, earlier[-1] if earlier else None, self.reply, self._warn)
        self._publishers[producer] = publisher
        if self._connection is not None:
            self._connection_nursery.start_soon(self._run_publisher, publisher, self._connection)
        self._wake(producer)

    def _wake(self, producer: Producer) -> None:
        publisher = self._publishers.get(producer)
        if publisher is None:
            return
        publisher.wake()
        if producer.ended is not None and publisher not in self._lingering:
            self._lingering.add(publisher)
            self._nursery.start_soon(self._linger, publisher)
            if self._outage is not None or publisher.troubled:
                producer.settle()

    def _remove(self, publisher: TaskPublisher) -> None:
        """The task is done with. Stop the exporter if that was the last."""
        producer = publisher.producer
        if self._publishers.pop(producer, None) is None:
            return
        self._lingering.discard(publisher)
        producer.settle()
        with _lock:
            self._producers.discard(producer)
            if self._producers:
                return
            self._unregister()
        self._nursery.cancel_scope.cancel()

    def _unregister(self) -> None:
        """Have the next task start another exporter. The caller holds the lock."""
        if _exporters.get(self._nats) is self:
            del _exporters[self._nats]

    def _begin_outage(self, why: str) -> None:
        self._outage = why
        for publisher in self._lingering:
            publisher.producer.settle()
        self._warn(f"task events are waiting for NATS: {why}")

    def _end_outage(self) -> None:
        if self._warned:
            _log.info("connected to NATS again: task events are being published")
        self._outage, self._ever_connected = None, True

    def _warn(self, text: str) -> None:
        """Log a warning, once per outage."""
        if not self._warned:
            self._warned = True
            _log.warning("%s", text)

    def _publish(self, subject: str, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.publish(subject, payload)

    def _abandon_all(self) -> None:
        for producer in list(self._publishers):
            producer.abandon()
            self._wake(producer)


def _finish_all() -> None:
    for exporter in list(_exporters.values()):
        exporter.finish()


def _reset_after_fork() -> None:
    """The threads of the parent do not exist in a forked process."""
    global _lock
    _exporters.clear()
    _lock = threading.Lock()


atexit.register(_finish_all)
os.register_at_fork(after_in_child=_reset_after_fork)
# A child process of multiprocessing ends without running atexit handlers, but it runs its own finalizers.
multiprocessing.util.register_after_fork(
    Exporter, lambda _: multiprocessing.util.Finalize(None, _finish_all, exitpriority=0)
)
