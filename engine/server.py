"""One worker's server: accepts on an inherited listening socket, runs the connections, and drains them at the end."""

import errno
import logging
import resource
import socket
from copy import copy

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.recovery import Recovery
from fanline.engine.clock import unix_ms
from fanline.engine.connections.connection import Connection
from fanline.engine.connections.handshake import open_websocket
from fanline.engine.connections.heartbeat import Heartbeat
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.outbox import OutboxShared
from fanline.engine.sending.transport import load_tls, start_tls
from fanline.engine.sessions.context import Context
from fanline.engine.sessions.identity import Access, DevelopmentAccess
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings
from fanline.engine.tasks.monitor import TaskMonitor
from fanline.protocol.errors import CloseReason

_ACCEPT_BATCH = 64  # accepted between two turns of the loop
_OWN_FILES = 64  # open files a worker needs besides its connections
_DRAIN_SLICE = 256  # connections told to go between two turns of the loop
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger("fanline.server")


class Server:
    """The engine of one worker. `serve` runs until it is cancelled, or until `drain` has ended everything.

    OSError from the constructor if the TLS files cannot be used.
    """

    def __init__(self, bus: Bus, settings: EngineSettings, access: Access | None = None) -> None:
        self._bus = bus
        self._settings = settings
        self._access = access or DevelopmentAccess()
        self._counters = Counters()
        self._namespaces = Namespaces(settings.namespaces)
        self._hub = Hub(self._counters, unix_ms, self._namespaces, log_limit=settings.log_messages)
        self._connections: set[Connection] = set()
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
        return copy(self._counters)

    async def serve(
        self, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve on a listening, non-blocking socket, which stays the caller's to close."""
        settings, counters = self._settings, self._counters
        flusher = Flusher(self._hub, counters, coalesce_ms=settings.coalesce)
        heartbeat = Heartbeat(settings.heartbeat)
        with self._serving:
            async with trio.open_nursery() as nursery:
                outboxes = OutboxShared(
                    nursery, counters, max_bytes=settings.outbox_bytes, max_messages=settings.outbox_messages
                )
                recovery = Recovery(self._bus, self._hub, self._namespaces, nursery)
                keeper = TaskMonitor(self._bus, self._namespaces, self._hub.read_message, self._hub.refuse)

                def bus_is_back(sound_until: float) -> None:
                    recovery.bus_is_back(sound_until)
                    keeper.bus_is_back()

                self._bus.attach(self._hub.receive, bus_is_back)
                session_store = SessionStore(self._bus)
                context = Context(
                    settings,
                    self._access,
                    self._bus,
                    self._hub,
                    recovery,
                    self._namespaces,
                    session_store,
                    counters,
                    outboxes,
                    nursery,
                )
                nursery.start_soon(session_store.run)
                nursery.start_soon(keeper.run)
                nursery.start_soon(flusher.run)
                nursery.start_soon(heartbeat.run)
                task_status.started()
                with self._accepting:
                    await self._accept(listener, nursery, context, heartbeat)
                await trio.sleep_forever()  # until drained or cancelled

    async def drain(self, seconds: float) -> None:
        """Stop accepting, tell every client to come back, and end `serve` when all are gone or time is up."""
        self._accepting.cancel()
        self._draining = True
        with trio.move_on_after(seconds):
            for number, connection in enumerate(tuple(self._connections)):
                connection.close(CloseReason.RESTART)
                if number % _DRAIN_SLICE == 0:
                    await trio.lowlevel.checkpoint()
            while self._sockets:
                self._empty = trio.Event()
                await self._empty.wait()
        self._serving.cancel()

    async def _accept(
        self, listener: socket.socket, nursery: trio.Nursery, context: Context, heartbeat: Heartbeat
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPT_BATCH):
                try:
                    sock, _address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_ROOM:
                        if not self._out_of_room:
                            _log.error("cannot accept: %s; trying again", error.strerror)
                        self._out_of_room = True
                        await trio.sleep(0.1)
                        break
                    continue  # the peer went away while it waited in the queue
                self._counters.accepted += 1
                self._out_of_room = False
                if self._sockets >= self._max_sockets:
                    sock.close()
                    continue
                self._sockets += 1
                nursery.start_soon(self._run, sock, context, heartbeat, name="connection")

    async def _run(self, sock: socket.socket, context: Context, heartbeat: Heartbeat) -> None:
        """One connection from its accept to its close."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                with trio.fail_after(self._settings.handshake_timeout):
                    sock = await start_tls(sock, self._tls)
            connection, rest = await self._open(sock, context)
            if connection is not None:
                await self._keep(connection, rest, heartbeat)
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

    async def _open(self, sock: socket.socket, context: Context) -> tuple[Connection | None, bytes]:
        opened = await open_websocket(sock, context)
        return (None, b"") if opened is None else (Connection(sock, opened, context), opened.rest)

    async def _keep(self, connection: Connection, rest: bytes, heartbeat: Heartbeat) -> None:
        self._connections.add(connection)
        self._counters.connections += 1
        if self._draining:  # its handshake was under way when the drain began
            connection.close(CloseReason.RESTART)
        self._hub.enter(connection.session.encoding, connection.outbox)
        heartbeat.add(connection)
        try:
            await connection.run(rest)
        finally:
            heartbeat.remove(connection)
            self._hub.exit(connection.session.encoding, connection.outbox)
            self._connections.discard(connection)
            self._counters.connections -= 1


def _socket_limit(settings: EngineSettings) -> int:
    """How many client sockets may be open: what the process's open-file limit leaves room for, or the setting."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = files - _OWN_FILES if files != resource.RLIM_INFINITY else 1 << 30
    # The setting bounds WebSockets and is answered politely (503); handshakes under way come on top.
    return min(room, settings.max_connections * 2) if settings.max_connections else room
