"""The loop that carries a producer's connection to NATS, on whichever thread calls `run`.

| while the loop is | it has               | it waits for                                    |
|-------------------|----------------------|-------------------------------------------------|
| resting           | neither              | the end of a delay, then it dials               |
| dialling          | `_dial`              | the next step of an attempt to connect          |
| connected         | `_line`              | what the server sends, room to send, the tick   |

Whatever it waits for, it also waits for calls of other threads, and for the time at which its user has something to do.
"""

import math
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from fanline.base.backoff import Backoff
from fanline.errors import FanlineError
from fanline.nats.dial import Dial, Dialled
from fanline.nats.requests import NatsRequests
from fanline.nats.waker import Waker
from fanline.nats.wire import SocketWire
from fanline.protocol.nats.addresses import NatsAddress, ServerPool, parse_url
from fanline.protocol.nats.connection import TICK_SECONDS, NatsConnection
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import Complaint, ServerInfo

STABLE_SECONDS = 5.0
"""After a connection that lasted longer than this, the next failure is an outage of its own: delays begin again with
the shortest.
"""


class LoopUser(Protocol):
    """What a loop calls, in its thread; must not block. Times are monotonic."""

    def connected(self, now: float) -> None:
        """There is a new connection, on which all subscriptions are made again."""

    def lost(self, why: str | None, now: float) -> None:
        """The connection has ended, or a whole round over all servers has failed; None if we leave a server that is
        about to stop.
        """

    def denied(self, complaint: Complaint) -> None:
        """The server does not permit something."""

    def step(self, now: float) -> float:
        """Do what is due. Returns the time by which to be called again; it is also called whenever something came."""


class _Line(NamedTuple):
    """An open connection."""

    wire: SocketWire
    connection: NatsConnection
    address: NatsAddress
    since: float


class NatsLoop:
    """`find_options` is asked for each connection, since they may change: a server that was restarted has another port
    and token. It raises FanlineError if NATS cannot be found now.
    """

    def __init__(self, find_options: Callable[[], NatsOptions]) -> None:
        self.requests = NatsRequests()
        """For use in the loop's thread."""
        self._find_options = find_options
        self._options: NatsOptions | None = None
        self._pool: ServerPool | None = None
        self._waker = Waker()
        self._backoff = Backoff(base=0.1, cap=5.0)
        self._failures = 0  # attempts to connect since the last connection
        self._dial: Dial | None = None
        self._line: _Line | None = None
        self._info: ServerInfo | None = None  # the one that was heeded last
        self._left: NatsAddress | None = None  # the server of the last connection
        self._due = -math.inf  # the end of the rest, or the next tick
        self._stopped = False

    # --- called from any thread ----------------------------------------------------------------------------------

    def call_soon(self, call: Callable[..., None], *args: object) -> None:
        """Have the loop call this in its thread. After its end nothing happens."""
        self._waker.call_soon(call, *args)

    def forget(self) -> None:
        """In a forked process: let go of our copies of the sockets, which the server does not notice. Under gevent the
        process has a copy of the loop, too; it ends when it has its turn, and closes what it still waits for.
        """
        self._stopped = True
        wire = self._wire
        with Path(os.devnull).open("rb") as null:
            for each in (*self._waker.sockets, *(() if wire is None else (wire.socket,))):
                if each.fileno() >= 0:
                    os.dup2(null.fileno(), each.fileno(), inheritable=False)
        if not self._waker.is_cooperative:
            self.close()

    # --- in the loop's thread ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End `run` after this turn."""
        self._stopped = True

    def run(self, user: LoopUser) -> None:
        """Stay connected until `stop`."""
        try:
            while not self._stopped:
                self._turn(user)
        finally:
            self.close()

    def _turn(self, user: LoopUser) -> None:
        self._waker.run_calls()
        due = min(user.step(time.monotonic()), self._due if self._dial is None else self._dial.deadline)
        try:
            self._write()
            if not self._stopped:
                self._advance(self._wait(due), user)
        except (NatsError, FanlineError, OSError) as error:
            self._end(_text_of(error), user)

    def _wait(self, until: float) -> int:
        """Wait for the wire, for a call, or until a time. Returns the events of the wire."""
        poll, wire = select.poll(), self._wire
        poll.register(self._waker.receiver, select.POLLIN)
        if wire is not None:
            poll.register(wire.socket, wire.events)
        seconds = max(0.0, until - time.monotonic())
        ready = dict(poll.poll(math.ceil(seconds * 1000)))
        if self._stopped:  # and forgotten, while it waited
            return 0
        self._waker.clear()
        return 0 if wire is None else ready.get(wire.socket.fileno(), 0)

    def _advance(self, events: int, user: LoopUser) -> None:
        now = time.monotonic()
        if self._stopped:
            return
        if self._line is not None:
            self._serve(self._line, events, now, user)
            return
        if self._dial is None and now >= self._due:
            self._dial = self._new_dial(now)
        if self._dial is not None:
            dialled = self._dial.expire(now) if now >= self._dial.deadline else self._dial.advance(now)
            if dialled is not None:
                self._begin(dialled, now, user)

    @property
    def _wire(self) -> SocketWire | None:
        if self._line is not None:
            return self._line.wire
        return None if self._dial is None else self._dial.wire

    # --- connecting ----------------------------------------------------------------------------------------------

    def _new_dial(self, now: float) -> Dial:
        options = self._find_options()
        if self._pool is None or options != self._options:
            self._options, self._pool = options, ServerPool([parse_url(url) for url in options.servers])
        address = self._pool.next()
        if address == self._left:  # not the one that has just ended our connection, if there is another
            address = self._pool.next()
        self._left = None
        return Dial(options, address, now, self._waker.wake)

    def _begin(self, dialled: Dialled, now: float, user: LoopUser) -> None:
        info, parser = dialled.handshake.info, dialled.handshake.parser
        connection = NatsConnection(
            info, parser, self.requests.subscriptions, on_work=_nothing, on_complaint=user.denied
        )
        self._dial, self._line = None, _Line(dialled.wire, connection, dialled.address, now)
        self._failures, self._due = 0, now + TICK_SECONDS
        self.requests.attach(connection)
        user.connected(now)

    def _end(self, why: str | None, user: LoopUser) -> None:
        """The connection has ended, or an attempt has failed. Rest: after a connection, and after each round over all
        servers.
        """
        now, line = time.monotonic(), self._line
        self._close_wire()
        self._line = self._dial = None
        if line is not None:
            self._left = line.address
            line.connection.close(NatsError(why or ""))
            self.requests.detach()
            if now - line.since > STABLE_SECONDS:
                self._backoff.reset()
        else:
            self._failures += 1
        rests = self._pool is None or self._failures % len(self._pool) == 0
        self._due = now + self._backoff.next_delay() if rests else now
        if rests:
            user.lost(why, now)

    def _close_wire(self) -> None:
        wire = self._wire
        if wire is not None:
            wire.close()

    def close(self) -> None:
        """After `run`, or instead of it."""
        self._close_wire()
        self._waker.close()

    # --- connected -----------------------------------------------------------------------------------------------

    def _serve(self, line: _Line, events: int, now: float, user: LoopUser) -> None:
        wire, connection = line.wire, line.connection
        if events & select.POLLOUT:
            wire.flush()
        if events & ~select.POLLOUT:  # data, the end of the stream, or an error
            connection.receive(wire.receive())
        if now >= self._due:  # after reading: a process that was stopped itself has not missed anything
            connection.tick()
            self._due = now + TICK_SECONDS
        if connection.info is not self._info:
            self._heed(connection.info, user)

    def _heed(self, info: ServerInfo, user: LoopUser) -> None:
        assert self._pool is not None
        self._info = info
        self._pool.tell(info.connect_urls)
        if info.ldm and len(self._pool) > 1:
            self._end(None, user)

    def _write(self) -> None:
        if self._line is None:
            return
        wire, connection = self._line.wire, self._line.connection
        if data := connection.take_output():
            try:
                wire.send(data)
            except OSError:
                while last := wire.receive():  # what the server said before it closed says more than "broken pipe"
                    connection.receive(last)
                raise
            connection.written(len(data))


def _text_of(error: Exception) -> str:
    return f"the connection to NATS was lost: {error}" if isinstance(error, OSError) else str(error)


def _nothing() -> None:
    """The loop writes what is queued before it waits, so that it need not be told."""
