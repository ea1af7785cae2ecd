"""How other threads reach a loop that waits for sockets."""

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial


class Waker:
    """A queue of calls, and a socket that becomes readable when there are some. No method blocks or takes a lock, so
    that a signal handler may call it, too.
    """

    def __init__(self) -> None:
        self.receiver, self._sender = socket.socketpair()
        self.receiver.setblocking(False)
        self._sender.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self.receiver, self._sender

    @property
    def is_cooperative(self) -> bool:
        """Whether the loop is a greenlet: only gevent's sockets have a hub."""
        return hasattr(self.receiver, "hub")

    def call_soon(self, call: Callable[..., None], *args: object) -> None:
        """Have the loop call this, from any thread. After the end of the loop nothing happens."""
        self._calls.append(partial(call, *args))
        self.wake()

    def wake(self) -> None:
        """End the loop's wait, from any thread."""
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # the loop has ended, or more wake-ups wait than it needs
                self._sender.send(b"\0")

    def clear(self) -> None:
        """The loop has been woken. Call this right after each wait, before looking for what is new: whoever wakes the
        loop from then on wakes the next wait.
        """
        # Other threads may come in anywhere. Read first: a byte that is sent after the flag is reset must stay. Read
        # always: the byte of a call that was made already may come late, and would wake the loop for ever.
        with suppress(BlockingIOError):
            self.receiver.recv(64)
        self._woken = False

    def run_calls(self) -> None:
        """Make the calls that wait. In the loop's thread."""
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        for each in self.sockets:
            each.close()
