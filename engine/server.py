"""One worker's server: accepts on an inherited listening socket, runs the connections, and drains them at the end."""

import errno
import logging
import random
import resource
import socket
from collections.abc import Awaitable, Callable
from copy import copy

import trio

from fanline.engine.access.access import Access
from fanline.engine.assembly.assembly import Assembly
from fanline.engine.assembly.basis import Basis
from fanline.engine.bus.interface import Bus
from fanline.engine.cluster.members import Members
from fanline.engine.connections.arrivals import Arrivals
from fanline.engine.connections.connection import Connection, ConnectionShared
from fanline.engine.connections.handshake import Handshakes, Opened
from fanline.engine.connections.http.readiness import Readiness
from fanline.engine.connections.spare_file import SpareFile
from fanline.engine.counters import Counters
from fanline.engine.faults import FatalError
from fanline.engine.hooks.settings import NO_HOOKS, ServedHooks
from fanline.engine.limits import Limit
from fanline.engine.management.feed import say_draining
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.transport import load_tls
from fanline.protocol.errors import CloseReason

_ACCEPT_BATCH = 4  # accepted between two turns of the loop, in which each handshake takes some 0.2 ms
_OWN_FILES = 128  # open files a worker needs besides its connections; some are for clients that are turned away
_RETURNS_PER_SECOND = 1000  # at which the clients of a worker that stops are to come back to the others
_LONGEST_RETURN = 10.0  # seconds
_DRAIN_SLICE = 256  # connections closed between two turns of the loop
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_SECONDS = 0.1  # before the kernel is asked again
_log = logging.getLogger("fanline.server")


class Server:
    """The engine of one worker. `serve` runs until it is cancelled, or until `drain` has ended everything.

    `name`: the name of this worker, for the other workers and for people; `control`: the path of the control process's
    socket, "" if there is none; `died`: how the worker before it in its slot died, "" if it did not.

    OSError from the constructor if the TLS files cannot be used.
    """

    def __init__(
        self,
        bus: Bus,
        settings: EngineSettings,
        access: Access | None = None,
        name: str = "",
        *,
        hooks: ServedHooks = NO_HOOKS,
        control: str = "",
        died: str = "",
    ) -> None:
        self._settings = settings
        self._basis = basis = Basis(bus, settings, Members(bus, name, died), hooks)
        self._parts = parts = Assembly(basis, access or Access(), hooks, control)
        readiness = Readiness(bus, basis.namespaces, lambda: self._draining)
        self._handshakes = Handshakes(
            settings,
            parts.admittance.routes,
            parts.admissions,
            basis.counters,
            readiness,
            basis.audit,
            basis.hits,
            parts.control,
        )
        self._arrivals = Arrivals(settings, basis.hits)
        self._sockets = 0  # accepted and not closed, whatever state they are in
        self._draining = False
        self._out_of_room = False
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._empty = trio.Event()
        self._max_sockets = _socket_limit(settings)
        self._tls = load_tls(settings)

    def statistics(self) -> Counters:
        """A copy of the counts."""
        return copy(self._basis.counters)

    async def serve(
        self, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve on a listening, non-blocking socket, which stays the caller's to close.

        In an exception group: BusError if this worker cannot subscribe to what all workers get; FatalError if something
        that the whole worker depends on has failed.
        """
        with self._serving:
            async with trio.open_nursery() as nursery:
                shared = await self._parts.start(nursery, self._run_vital)
                task_status.started()
                with self._accepting, SpareFile() as spare:
                    await self._accept(listener, spare, nursery, shared)
                await trio.sleep_forever()  # until drained or cancelled

    async def _run_vital(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run something that the whole worker depends on: its fault ends the worker, after clients are asked to come
        back.
        """
        try:
            await run()
        except Exception as error:
            _log.critical("%s failed; this worker ends", name, exc_info=True)
            await self.drain(self._settings.close_timeout)
            raise FatalError(f"{name} failed") from error

    async def drain(self, seconds: float) -> None:
        """Stop accepting, tell every client to come back, and end `serve` when all are gone or time is up."""
        self._accepting.cancel()
        self._draining = True
        say_draining(self._basis.bus, self._basis.members)
        with trio.move_on_after(seconds):
            await self._send_away(seconds / 2)
            while self._sockets:
                self._empty = trio.Event()
                await self._empty.wait()
        self._serving.cancel()

    async def _send_away(self, seconds: float) -> None:
        """Close all connections so that their clients come back to other workers one after the other: clients that
        can be told when, at once, and the others gradually, within `seconds` seconds.
        """
        connections = [*self._basis.registry]
        spread = min(len(connections) / _RETURNS_PER_SECOND, _LONGEST_RETURN)
        told = [connection for connection in connections if connection.can_be_told]
        others = [connection for connection in connections if not connection.can_be_told]
        for number, connection in enumerate(told):
            connection.send_away(random.uniform(0, spread))  # noqa: S311  # no secret
            if number % _DRAIN_SLICE == 0:
                await trio.lowlevel.checkpoint()
        begun, pace = trio.current_time(), min(spread, seconds) / max(1, len(others))
        for number, connection in enumerate(others):
            connection.close(CloseReason.RESTART)
            await trio.sleep_until(begun + pace * (number + 1))

    async def _accept(
        self, listener: socket.socket, spare: SpareFile, nursery: trio.Nursery, shared: ConnectionShared
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            await self._arrivals.wait_turn()
            for _ in range(_ACCEPT_BATCH):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_ROOM and not await self._dismiss_next(listener, spare, error):
                        break
                    continue  # else the peer went away while it waited in the queue
                self._basis.counters.accepted += 1
                self._out_of_room = False
                if self._sockets >= self._max_sockets:
                    self._basis.hits.hit(Limit.CONNECTIONS)
                    nursery.start_soon(self._handshakes.turn_away, sock, self._tls, name="turned away")
                else:
                    self._sockets += 1
                    nursery.start_soon(self._run, sock, str(address[0]), shared, name="connection")
                if not self._arrivals.take_turn():
                    break  # only the kernel knows whether a connection waits for the next turn

    async def _dismiss_next(self, listener: socket.socket, spare: SpareFile, error: OSError) -> bool:
        """The kernel has no file or no memory for another socket: say so once, and give up the spare file to tell the
        next client to come back later. False if none waits, or if not even that is possible now.
        """
        if not self._out_of_room:
            _log.error("cannot accept: %s; clients are turned away", error.strerror)
        self._out_of_room = True
        try:
            with spare.given_up():
                sock, _address = listener.accept()
                self._basis.counters.accepted += 1
                await self._handshakes.dismiss(sock, self._tls)
        except BlockingIOError:
            return False
        except OSError:
            await trio.sleep(_NO_ROOM_SECONDS)
            return False
        return True

    async def _shake_hands(self, sock: socket.socket, peer: str) -> tuple[socket.socket, Opened | None]:
        """From an accepted socket to the one that is a WebSocket, if it has become one. OSError, TooSlowError.

        Not a part of `_run`, whose frame lives as long as the connection, and would be 0.3 KB larger.
        """
        with self._arrivals.one(peer) as arrival:
            if self._tls is not None or self._arrivals.expects_header(arrival):
                sock = await self._arrivals.before_http(sock, arrival, self._tls)
            try:
                return sock, await self._handshakes.open_websocket(sock, arrival)
            except BaseException:
                trio.lowlevel.notify_closing(sock)
                sock.close()
                raise

    async def _run(self, sock: socket.socket, peer: str, shared: ConnectionShared) -> None:
        """One connection from its accept to its close."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock, opened = await self._shake_hands(sock, peer)
            del peer  # this frame lives as long as the connection
            if opened is not None:
                connection, rest, address = Connection(sock, opened, shared), opened.rest, opened.address
                if opened.admission.refusal is not None:
                    connection.refuse(opened.admission.refusal)
                del opened
                if self._draining:  # the handshake was under way when the drain began
                    connection.close(CloseReason.RESTART)
                if address is None:
                    await self._basis.registry.serve(connection, rest)
                else:  # a `with` of its own would take 0.4 KB of every connection
                    with self._handshakes.limits.counted(address):
                        await self._basis.registry.serve(connection, rest)
        except (OSError, trio.TooSlowError):
            pass  # the peer is gone, or cannot speak TLS
        except Exception:  # noqa: BLE001  # our own fault, and still that of one connection only
            _log.exception("a connection failed")
        finally:
            if sock.fileno() >= 0:
                trio.lowlevel.notify_closing(sock)
                sock.close()
            self._sockets -= 1
            if not self._sockets:
                self._empty.set()


def _socket_limit(settings: EngineSettings) -> int:
    """How many client sockets may be open: what the process's open-file limit leaves room for, or the setting."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = files - _OWN_FILES if files != resource.RLIM_INFINITY else 1 << 30
    # The setting bounds WebSockets and is answered politely (503); handshakes under way come on top.
    return min(room, settings.max_connections * 2) if settings.max_connections else room
