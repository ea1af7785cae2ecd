"""One thread per process, NATS and kind of work, which carries a connection: its start, its end, and forks.

It starts with the first thing to do. A forked process starts its own. At the end of the program each thread gets some
seconds to send what is left. Under gevent the thread is a greenlet.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Self

from fanline.local import FollowedServer
from fanline.nats.loop import LoopUser, NatsLoop
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import nats_options

_log = logging.getLogger("fanline")
_current: dict[tuple[type["NatsThread"], NatsOptions | None], "NatsThread"] = {}  # those that get what is new
_open: set["NatsThread"] = set()  # those that may have open sockets
_others: list[Callable[[], None]] = []  # what else ends with the program
_finalizers: dict[str, int] = {}  # modules that will call finish_all, and in which process
# Guards _current, and what each thread has to do. Never held while something waits: under gevent, if the patch came
# after the import, a greenlet that waits for it stops all others. Reentrant, since a signal handler may start a task
# while its own thread holds the lock; then there may be two threads for a while.
_lock = threading.RLock()


class NatsThread:
    """Each kind of work is a subclass: it sets `user`, and has the loop call whatever there is to do.

    `nats` None: the NATS of the local server, which is looked up for each connection, since a server that was restarted
    has another port and token.
    """

    name: ClassVar[str]
    """Of the thread."""
    work: ClassVar[str]
    """What it publishes, for the log."""
    user: LoopUser

    def __init__(self, nats: NatsOptions | None) -> None:
        self.loop = NatsLoop(self.find_options)
        self._nats = nats
        self._server = FollowedServer()
        self._started = False
        self._thread: threading.Thread | None = None
        self._forgotten = False
        _open.add(self)
        if nats is not None and (nats.creds or nats.nkey):
            import nkeys  # noqa: F401  # otherwise the thread imports it, see fanline/nats/dial.py

    # --- what a kind of work adds --------------------------------------------------------------------------------

    def finishing(self) -> float:
        """The program ends. Returns for how many seconds at most it waits for what is left."""
        raise NotImplementedError

    def wait_for_jobs(self) -> None:
        """Wait for what other threads of the program still do, and the process will wait for before it ends."""

    def ended(self) -> None:
        """The thread has ended, or could not be started: nothing is published any more."""
        raise NotImplementedError

    def find_options(self) -> NatsOptions:
        """Where NATS is now. Raises FanlineError."""
        return nats_options(self._server.find()) if self._nats is None else self._nats

    # --- for it --------------------------------------------------------------------------------------------------

    @classmethod
    def current(cls, nats: NatsOptions | None) -> Self:
        """The thread of this process for a NATS. The caller holds the lock, so that the thread does not stop before it
        has its work, and starts it afterwards. Raises OSError if too many files are open.
        """
        found = _current.get((cls, nats))
        if found is None:
            found = _current[cls, nats] = cls(nats)
        assert isinstance(found, cls)
        return found

    def start(self) -> None:
        """Start the thread, unless it was started. Without the lock."""
        if self._started:
            return
        self._started = True
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads are possible, or the interpreter is shutting down
            _log.error("%s are not published: %s", self.work, error)
            self.loop.close()
            self._end()
        else:
            self._thread = thread
            _finish_with_children()

    def unregister(self) -> None:
        """What is new from now on gets another thread. The caller holds the lock."""
        if _current.get((type(self), self._nats)) is self:
            del _current[type(self), self._nats]

    # --- the end -------------------------------------------------------------------------------------------------

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))

    def forget(self) -> None:
        """In a forked process: the thread is the parent's, and so is its connection."""
        self._forgotten = True
        self.loop.forget()

    def _run(self) -> None:
        try:
            self.loop.run(self.user)
        except Exception as error:  # noqa: BLE001  # a fault in here must not harm the program
            if not self._forgotten:
                _log.error("%s are no longer published: %r", self.work, error)
        finally:
            if self._forgotten:  # a greenlet's copy: `threading` has forgotten it, too, and would fail at its end
                threading.Event().wait()
            self._end()

    def _end(self) -> None:
        with _lock:
            self.unregister()
        self.ended()
        _open.discard(self)


def lock() -> threading.RLock:
    """The lock of all threads' work in this process, which is another one after a fork."""
    return _lock


def finish_all() -> None:
    """The program ends; called by `fanline` itself."""
    now = time.monotonic()
    ends = [(thread, now + thread.finishing()) for thread in list(_current.values())]
    for thread, end in ends:
        thread.join(end - time.monotonic())
    for finish in _others:
        finish()
    _others.clear()


def _finish_child() -> None:
    """A child process ends. Unlike atexit handlers, finalizers run before its threads are waited for."""
    for thread in list(_current.values()):
        thread.wait_for_jobs()
    finish_all()


def finish_too(finish: Callable[[], None]) -> None:
    """Call this, too, when the program ends. Not in a process that is forked from now on."""
    _others.append(finish)
    _finish_with_children()


def _forget_all() -> None:
    """In a forked process, whose parent may have held the lock."""
    global _lock
    _lock = threading.RLock()
    for thread in list(_open):
        thread.forget()
    _open.clear()
    _current.clear()
    _others.clear()


def _finish_with_children() -> None:
    """Child processes of multiprocessing, and of Celery, end without atexit handlers, but they run finalizers."""
    for name in ("multiprocessing.util", "billiard.util"):
        if (util := sys.modules.get(name)) is not None and _finalizers.get(name) != os.getpid():
            _finalizers[name] = os.getpid()
            util.Finalize(None, _finish_child, exitpriority=0)


os.register_at_fork(after_in_child=_forget_all)
