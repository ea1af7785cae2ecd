"""One worker's server: accepts on an inherited listening socket, runs the connections, and drains them at the end."""

import errno
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial

import trio

from fanline.engine.access.access import Access, Verifier
from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.revocations import Revocations
from fanline.engine.access.user_places import UserPlaces
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.durable.history import History
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.join import Joining
from fanline.engine.channels.messages import MessageReader
from fanline.engine.channels.subscription import Router
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.connections.connection import Connection, ConnectionShared
from fanline.engine.connections.handshake import Handshakes
from fanline.engine.connections.readiness import Readiness
from fanline.engine.connections.registry import Registry
from fanline.engine.connections.spare_file import SpareFile
from fanline.engine.counters import Counters
from fanline.engine.faults import FatalError, Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.outbox import OutboxShared
from fanline.engine.sessions.calls import Calls
from fanline.engine.sessions.commands import Commands
from fanline.engine.sessions.expiry import Expiry
from fanline.engine.sessions.publisher import ClientPublisher
from fanline.engine.sessions.rate import Rate
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings
from fanline.engine.slices import Turns
from fanline.engine.tasks.monitor.monitor import TaskMonitor
from fanline.engine.transport import load_tls, start_tls
from fanline.protocol.errors import CloseReason
from fanline.protocol.messages import Limits

_ACCEPT_BATCH = 64  # accepted between two turns of the loop
_OWN_FILES = 128  # open files a worker needs besides its connections; some are for clients that are turned away
_DRAIN_SLICE = 256  # connections closed between two turns of the loop
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_SECONDS = 0.1  # before the kernel is asked again
_log = logging.getLogger("fanline.server")


class Server:
    """The engine of one worker. `serve` runs until it is cancelled, or until `drain` has ended everything.

    `name`: what the other workers and people call this one.

    OSError from the constructor if the TLS files cannot be used.
    """

    def __init__(self, bus: Bus, settings: EngineSettings, access: Access | None = None, name: str = "") -> None:
        self._bus = bus
        self._members = Members(bus, name)
        self._settings = settings
        self._access = access or Access()
        self._counters = Counters()
        self._faults = Faults(self._counters)
        self._namespaces = Namespaces(settings.namespaces)
        self._places = UserPlaces(bus, self._members, self._access.check_revoked)
        self._audit = Audit(settings.audit_log, name)
        self._revocations = Revocations(bus)
        readiness = Readiness(bus, self._namespaces, lambda: self._draining)
        self._handshakes = Handshakes(settings, self._access, self._counters, readiness, self._audit, self._places)
        self._registry = Registry(settings.heartbeat, self._counters, self._faults)
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
        """Serve on a listening, non-blocking socket, which stays the caller's to close.

        In an exception group: BusError, if the bus does not let this worker hear what all workers hear; FatalError, if
        what the whole worker depends on has failed.
        """
        with self._serving:
            async with trio.open_nursery() as nursery:
                shared = self._start_parts(nursery)
                for namespace in self._namespaces.everywhere():
                    await self._bus.wait_joined(f"{namespace}:")
                if self._access.verifier is not None:
                    await self._start_tokens(nursery, self._access.verifier)
                task_status.started()
                with self._accepting, SpareFile() as spare:
                    await self._accept(listener, spare, nursery, shared)
                await trio.sleep_forever()  # until drained or cancelled

    # The parts are put together bottom up, as the layers are.

    def _start_parts(self, nursery: trio.Nursery) -> ConnectionShared:
        """Make what all connections share, and start what runs in the background."""
        settings, counters, faults = self._settings, self._counters, self._faults
        outboxes = OutboxShared(
            nursery,
            counters,
            max_bytes=settings.outbox_bytes,
            max_messages=settings.outbox_messages,
            on_fault=faults.report,
        )
        joining = self._start_channels(nursery)
        store = SessionStore(self._bus)
        expiry = Expiry(self._access.tokens.grace)
        commands = self._make_commands(nursery, joining, store, expiry)
        nursery.start_soon(faults.keep, "the session store", store.run)
        nursery.start_soon(faults.keep, "the heartbeat", self._registry.beat)
        nursery.start_soon(faults.keep, "the end of tokens", expiry.run)
        nursery.start_soon(faults.keep, "the places of users", self._places.run)
        rate = Rate(settings.messages_per_second, settings.bytes_per_second)
        limits = Limits(message=settings.max_message_bytes, subscriptions=settings.max_subscriptions)
        return ConnectionShared(settings, limits, counters, outboxes, commands, store, expiry, rate, self._places)

    async def _start_tokens(self, nursery: trio.Nursery, verifier: Verifier) -> None:
        """Know which tokens were taken back before the first one is accepted. BusError."""
        self._access.is_revoked = self._revocations.covers
        await self._revocations.read()

        def close_revoked() -> None:
            for connection in self._registry:
                if self._revocations.covers(connection.session.identity):
                    self._audit.record(AuditEvent.REVOKED, connection.session.identity)
                    connection.close(CloseReason.UNAUTHENTICATED)

        nursery.start_soon(self._faults.keep, "revocations", partial(self._revocations.run, close_revoked))
        nursery.start_soon(self._faults.keep, "the keys of tokens", verifier.run)

    def _start_channels(self, nursery: trio.Nursery) -> Joining:
        """The hub with all that is behind it, from the bus to the flusher."""
        bus, settings, counters, faults = self._bus, self._settings, self._counters, self._faults
        turns = Turns()
        reader = MessageReader(self._namespaces, counters, faults, unix_ms, turns)
        budget = LogBudget(settings.log_bytes)
        everyone, log_limit = self._registry.everyone, settings.log_messages
        hub = Hub(self._namespaces, reader, counters, faults, everyone, log_limit=log_limit, budget=budget)
        states = StreamStates(bus)
        recovery = Recovery(bus, hub, states, reader, faults, nursery)
        monitor = TaskMonitor(bus, self._members, self._namespaces, reader.read_stored, reader.refuse, counters, faults)

        def bus_is_back(sound_until: float) -> None:
            recovery.bus_is_back(sound_until)
            monitor.bus_is_back()
            self._revocations.bus_is_back()

        flusher = Flusher(hub, counters, coalesce_ms=settings.coalesce)
        bus.attach(hub.receive, bus_is_back, flusher.after_burst)
        nursery.start_soon(faults.keep, "the list of live workers", self._members.run)
        nursery.start_soon(monitor.run)
        nursery.start_soon(self._run_vital, "the flusher", flusher.run)
        return Joining(
            bus,
            Router(hub, bus, settings.bus_timeout),
            recovery,
            History(bus, states, reader, recovery),
            counters,
            faults,
            timeout=settings.bus_timeout,
            patience=settings.idle_timeout,
            turns=turns,
        )

    def _make_commands(self, nursery: trio.Nursery, joining: Joining, store: SessionStore, expiry: Expiry) -> Commands:
        bus, settings, namespaces = self._bus, self._settings, self._namespaces
        return Commands(
            bus=bus,
            access=self._access,
            places=self._places,
            audit=self._audit,
            expiry=expiry,
            permissions=Permissions(namespaces, closed=self._access.closed),
            joining=joining,
            publisher=ClientPublisher(bus, namespaces),
            calls=Calls(bus, namespaces, joining, nursery, timeout=settings.call_timeout, on_fault=self._faults.report),
            store=store,
            counters=self._counters,
            max_subscriptions=settings.max_subscriptions,
        )

    async def _run_vital(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run what the whole worker depends on: its fault ends the worker, once clients are told to come back."""
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
        with trio.move_on_after(seconds):
            for number, connection in enumerate(self._registry):
                connection.close(CloseReason.RESTART)
                if number % _DRAIN_SLICE == 0:
                    await trio.lowlevel.checkpoint()
            while self._sockets:
                self._empty = trio.Event()
                await self._empty.wait()
        self._serving.cancel()

    async def _accept(
        self, listener: socket.socket, spare: SpareFile, nursery: trio.Nursery, shared: ConnectionShared
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPT_BATCH):
                try:
                    sock, _address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_ROOM and not await self._dismiss_next(listener, spare, error):
                        break
                    continue  # else the peer went away while it waited in the queue
                self._counters.accepted += 1
                self._out_of_room = False
                if self._sockets >= self._max_sockets:
                    self._turn_away(sock, nursery)
                    continue
                self._sockets += 1
                nursery.start_soon(self._run, sock, shared, name="connection")

    def _turn_away(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        if self._tls is None:
            nursery.start_soon(self._handshakes.turn_away, sock, name="turned away")
        else:
            sock.close()  # the answer would take a TLS handshake, which costs more than a connection

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
                self._counters.accepted += 1
                if self._tls is None:
                    await self._handshakes.dismiss(sock)
                sock.close()
        except BlockingIOError:
            return False
        except OSError:
            await trio.sleep(_NO_ROOM_SECONDS)
            return False
        return True

    async def _run(self, sock: socket.socket, shared: ConnectionShared) -> None:
        """One connection from its accept to its close."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                with trio.fail_after(self._settings.handshake_timeout):
                    sock = await start_tls(sock, self._tls)
            opened = await self._handshakes.open_websocket(sock)
            if opened is not None:
                connection, rest, address = Connection(sock, opened, shared), opened.rest, opened.address
                if opened.admission.refusal is not None:
                    connection.refuse(opened.admission.refusal)
                del opened  # this frame lives as long as the connection
                if self._draining:  # the handshake was under way when the drain began
                    connection.close(CloseReason.RESTART)
                if address is None:
                    await self._registry.serve(connection, rest)
                else:  # a `with` of its own would take 0.4 KB of every connection
                    with self._handshakes.limits.counted(address):
                        await self._registry.serve(connection, rest)
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
