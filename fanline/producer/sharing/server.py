"""Where the process that runs a task hears what others report with a handle: a Unix socket that only its user can open.

A handle's report is in the socket when its method returns, and the end of the task takes what is in the socket first:
so whatever a child reported before the job heard of its result is not lost.
"""

import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from fanline.base.socket_directory import SocketDirectory

_CHUNK = 1 << 16
_END_SECONDS = 2.0
"""At most so long does the end of a task wait for what is in the socket."""
_FULL_SECONDS = 0.1
"""For how long nobody is let in when there are too many open files."""

Take = Callable[[bytes], None]


class HandleServer:
    """`take` gets each line that a handle says. It runs in a thread of its own, which is daemonic. Raises OSError."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._directory = SocketDirectory()
        self.address = self._directory.socket_path
        self._listener = socket.socket(socket.AF_UNIX)
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._rest: dict[socket.socket, bytes] = {}  # of each connection: the line that is not complete yet
        self._news: bytes | None = None  # what every handle is told
        self._closing = False
        self._full = False  # no more connections can be had for now
        self._listener.bind(self.address)
        self._listener.listen(128)
        for each in (self._listener, self._woken):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="fanline handles", daemon=True)
        self._thread.start()

    def tell(self, line: bytes) -> None:
        """Say something to every handle, now or when it connects. From any thread."""
        self._news = line
        self._wake()

    def close(self) -> None:
        """Take what has been reported up to now, and end."""
        self._closing = True
        self._wake()
        self._thread.join(_END_SECONDS)

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b"x")

    # --- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                if self._full:
                    self._step(_FULL_SECONDS)
                    self._full = False
                    self._selector.register(self._listener, selectors.EVENT_READ)
                else:
                    self._step(None)
            while self._step(0):
                pass
        finally:
            self._directory.close()
            self._selector.close()
            for each in (self._listener, self._woken, self._waker, *self._rest):
                each.close()

    def _step(self, seconds: float | None) -> bool:
        """Do what is to be done; whether there was anything."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            source = key.fileobj
            assert isinstance(source, socket.socket)
            if source is self._listener:
                self._accept()
            elif source is self._woken:
                self._woken.recv(_CHUNK)
                self._say_to(self._rest)
            else:
                self._hear(source)
        return bool(ready)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it has gone again
            return
        except OSError:  # too many open files: whoever waits would be reported again and again
            self._full = True
            self._selector.unregister(self._listener)
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._rest[connection] = b""
        self._say_to((connection,))

    def _hear(self, connection: socket.socket) -> None:
        try:
            chunk = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._selector.unregister(connection)
            del self._rest[connection]
            connection.close()
            return
        *lines, self._rest[connection] = (self._rest[connection] + chunk).split(b"\n")
        for line in lines:
            self._take(line)

    def _say_to(self, connections: Iterable[socket.socket]) -> None:
        if self._news is not None:
            for each in connections:
                with suppress(OSError):
                    each.send(self._news)
