"""The exporter: one thread per process and NATS, which publishes the events of its tasks and receives their calls.

It starts with the first task and stops after the last. A job only ever adds to a buffer, so a slow network does not
hold up the job, and a busy event loop of the job does not hold up the exporter. A forked process starts its own. Under
gevent the thread is a greenlet.
"""

import logging
import os
import sys
import threading
from contextlib import suppress

from fanline.local import find_server
from fanline.nats.loop import NatsLoop
from fanline.producer.exporter.task_publishers import TaskPublishers
from fanline.producer.producer import Producer
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.serve_state import nats_options

_log = logging.getLogger("fanline")
_exporters: dict[NatsOptions | None, "Exporter"] = {}  # those that new tasks go to
_open: set["Exporter"] = set()  # those that may have open sockets
_finalizers: dict[str, int] = {}  # modules that will call finish_all, and in which process
# Guards _exporters, and which producers each of them has. Never held while something waits: under gevent, if the patch
# came after the import, a greenlet that waits for it stops all others. Reentrant, since a signal handler may start a
# task while its own thread holds the lock; then there may be two exporters for a while.
_lock = threading.RLock()


def export(producer: Producer) -> None:
    """Publish the events of this producer from now on, until it has ended."""
    nats = producer.settings.nats
    try:
        with _lock:
            exporter = _exporters.get(nats)
            new = exporter is None
            if exporter is None:
                exporter = _exporters[nats] = Exporter(nats)
            exporter.add(producer)
        if new:
            exporter.start()
    except OSError as error:  # too many open files
        _log.error("the events of task %s are not published: %s", producer.id, error)
        producer.settle()


class Exporter:
    """Publishes for all tasks of this process that use one NATS; None: that of the local server."""

    def __init__(self, nats: NatsOptions | None) -> None:
        self._nats = nats
        self._producers: set[Producer] = set()  # guarded by _lock
        self._loop = NatsLoop(self._options)
        self._tasks = TaskPublishers(self._loop.requests, self._reply, self._remove)
        self._thread: threading.Thread | None = None
        self._forgotten = False
        _open.add(self)
        if nats is not None and (nats.creds or nats.nkey):
            import nkeys  # noqa: F401  # otherwise the thread imports it, see fanline/nats/dial.py

    def add(self, producer: Producer) -> None:
        """Publish for this producer too. The caller holds the lock, so that the exporter does not stop meanwhile."""
        self._producers.add(producer)
        producer.attach(lambda: self._loop.call_soon(self._tasks.wake, producer))
        self._loop.call_soon(self._tasks.add, producer)

    def start(self) -> None:
        thread = threading.Thread(target=self._work, name="fanline exporter", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads are possible, or the interpreter is shutting down
            _log.error("the events of this process's tasks are not published: %s", error)
            self._loop.close()
            self._end()
        else:
            self._thread = thread
            _finish_with_children()

    def finish(self) -> None:
        """The program ends: store what is buffered, for as long as the tasks linger."""
        with _lock:
            linger = max((self._tasks.linger_seconds(producer) for producer in self._producers), default=0.0)
        self._loop.call_soon(self._tasks.abandon_all)
        if self._thread is not None:
            self._thread.join(linger + 1.0)

    def forget(self) -> None:
        """In a forked process: the exporter is the parent's, and so is its connection."""
        self._forgotten = True
        self._loop.forget()

    # --- in the thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._loop.run(self._tasks)
        except Exception as error:  # noqa: BLE001  # a fault in here must not harm the job
            if not self._forgotten:
                _log.error("the events of this process's tasks are no longer published: %r", error)
        finally:
            if self._forgotten:  # a greenlet's copy: `threading` has forgotten it, too, and would fail at its end
                threading.Event().wait()
            self._end()

    def _options(self) -> NatsOptions:
        """Looked up for each connection: a server that was restarted has another port and token."""
        return nats_options(find_server()) if self._nats is None else self._nats

    def _reply(self, subject: str, payload: bytes) -> None:
        """Publish the reply to a call. From any thread."""
        self._loop.call_soon(self._publish, subject, payload)

    def _publish(self, subject: str, payload: bytes) -> None:
        with suppress(NatsError):  # the caller made up an impossible subject for its answer
            self._loop.requests.publish(subject, payload)

    def _remove(self, producer: Producer) -> None:
        """The task is done with. Stop if that was the last: the next task starts another exporter."""
        with _lock:
            self._producers.discard(producer)
            if self._producers:
                return
            self._unregister()
        self._loop.stop()

    def _end(self) -> None:
        """Nothing is published any more: no job need wait for it."""
        with _lock:
            self._unregister()
            producers, self._producers = self._producers, set()
        for producer in producers:
            producer.settle()
        _open.discard(self)

    def _unregister(self) -> None:
        """The caller holds the lock."""
        if _exporters.get(self._nats) is self:
            del _exporters[self._nats]


def finish_all() -> None:
    """The program ends; called by `fanline` itself."""
    for exporter in list(_exporters.values()):
        exporter.finish()


def _forget_all() -> None:
    """In a forked process, whose parent may have held the lock."""
    global _lock
    _lock = threading.RLock()
    for exporter in list(_open):
        exporter.forget()
    _open.clear()
    _exporters.clear()


def _finish_with_children() -> None:
    """Child processes of multiprocessing, and of Celery, end without atexit handlers, but they run finalizers."""
    for name in ("multiprocessing.util", "billiard.util"):
        if (util := sys.modules.get(name)) is not None and _finalizers.get(name) != os.getpid():
            _finalizers[name] = os.getpid()
            util.Finalize(None, finish_all, exitpriority=0)


os.register_at_fork(after_in_child=_forget_all)
