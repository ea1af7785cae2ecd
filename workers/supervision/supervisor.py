"""The supervisor: owns the listening sockets and keeps nats-server and one worker per slot alive. Knows no protocol."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from fanline.engine.access.settings import AuthMode
from fanline.engine.sockets.transport import load_tls
from fanline.protocol.serve_state import ServeState, control_socket_name
from fanline.workers.access import make_verifier
from fanline.workers.configuration.settings import Settings
from fanline.workers.control.service import ControlProcess
from fanline.workers.embedded_nats.accounts import ENGINE_USER, PRODUCER_USER
from fanline.workers.embedded_nats.server import run_nats_server
from fanline.workers.errors import ServeError
from fanline.workers.handlers.service import HandlersProcess, handlers_to_run, is_needed, subjects_asked
from fanline.workers.own_secret import with_secret
from fanline.workers.state_file import published, running_server
from fanline.workers.supervision.child import Child, dies_with_parent
from fanline.workers.supervision.listeners import PortTakenError, open_listeners, websocket_url
from fanline.workers.supervision.service import keep_running
from fanline.workers.supervision.slot import WorkerSlot

SLOW_SECONDS = 1.0
"""After this time a start logs what it is waiting for."""

_log = logging.getLogger("fanline.supervisor")


async def supervise(settings: Settings, state_directory: Path, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. `announce` gets the one line that reports readiness.

    Raises ServeError, perhaps in an exception group, if the server cannot start. No process is left afterwards.
    """
    _check_tls(settings)
    settings = with_secret(settings)
    make_verifier(settings.tokens)  # checked once, here, instead of in each worker
    if settings.auth is AuthMode.OPEN:
        _log.warning("auth is open: anyone who reaches this server may do everything")
    with _listening(settings, state_directory) as listeners, _control_listener(settings) as control:
        await Supervisor(settings, listeners, state_directory, control).run(announce)
    _log.info("stopped")


def ready_line(state: ServeState, settings: Settings) -> str:
    """The line on stdout that programs and people wait for."""
    workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
    kind = "embedded" if settings.embedded else "external"
    return f"fanline ready: {state.url}  {workers}  {state.nats} ({kind})  {_MODES[settings.auth]}"


_MODES = {
    AuthMode.DEVELOPMENT: "development mode: no authentication, everything is allowed",
    AuthMode.TOKEN: "tokens are required",
    AuthMode.OPEN: "OPEN: no authentication, anyone may do everything",
}


class Supervisor:
    """One run of the server: the sockets it listens on, the processes that live, and the two ways to end it."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        state_directory: Path,
        control_listener: socket.socket | None = None,
    ) -> None:
        """`control_listener`: a port of its own for the control process, if it is to have one."""
        self._state_directory = state_directory
        self._control_listener = control_listener
        self._settings = settings
        self._listeners = listeners
        self._port = listeners[0].getsockname()[1]
        self._control = str(state_directory.absolute() / control_socket_name(self._port)) if settings.control else ""
        self._url = websocket_url(listeners[0], tls=bool(settings.engine.ssl_certfile))
        self._producer_password = ""
        """Of the embedded nats-server."""
        self._alive: set[Child] = set()
        self._stopping = trio.CancelScope()
        """Cancelled, it ends the server in order: clients leave, workers end, then nats-server."""
        self._killing = trio.CancelScope()
        """Cancelled, it ends everything at once."""

    async def run(self, announce: Callable[[str], None]) -> None:
        async with trio.open_nursery() as watching:
            await watching.start(self._watch_signals)
            with self._killing:
                await self._serve(announce)
            watching.cancel_scope.cancel()

    async def _serve(self, announce: Callable[[str], None]) -> None:
        """Start nats-server, then the workers, and announce them; stop in the reverse order.

        Workers that end still send nats-server what they have, and ask handlers. The two other processes also end
        before nats-server, so that they see no outage when nothing is wrong.
        """
        async with trio.open_nursery() as nats:
            async with trio.open_nursery() as helpers:
                with self._stopping:
                    settings = await self._start_nats(nats)
                    async with trio.open_nursery() as workers:
                        async with trio.open_nursery() as starting:
                            starting.start_soon(self._start_handlers, helpers, settings)
                            starting.start_soon(self._start_workers, workers, settings)
                        state = self._state(settings)
                        with published(state, self._state_directory, self._port):
                            announce(ready_line(state, self._settings))
                            self._start_control(helpers, settings)
                            await self._sleep_and_close()
                helpers.cancel_scope.cancel()
            nats.cancel_scope.cancel()

    async def _start_nats(self, nursery: trio.Nursery) -> Settings:
        """The settings for workers: with the URL, the login and the limits of the embedded nats-server, unless NATS is
        external.
        """
        if not self._settings.embedded:
            return self._settings
        owner = f"pid {os.getpid()}, {self._url}"
        server = await nursery.start(run_nats_server, self._settings, owner, self._alive)
        self._producer_password = server.producer_password
        return msgspec.structs.replace(
            self._settings,
            nats=server.url,
            nats_user=ENGINE_USER,
            nats_password=server.engine_password,
            engine=server.engine,
        )

    async def _start_handlers(self, nursery: trio.Nursery, settings: Settings) -> None:
        """Start the process of handlers, if the settings need it."""
        if is_needed(settings):
            process = HandlersProcess(settings, handlers_to_run(settings))
            await nursery.start(keep_running, process, self._alive)

    def _start_control(self, nursery: trio.Nursery, settings: Settings) -> None:
        """Start the control process, if there is to be one. Nothing waits for it: it has much to import, and clients
        do not need what it does.
        """
        if self._control:
            process = ControlProcess(settings, self._control, self._url, self._control_listener)
            nursery.start_soon(partial(keep_running, process, self._alive, optional=True))

    async def _start_workers(self, nursery: trio.Nursery, settings: Settings) -> None:
        """Start all at once, and return when every one is ready."""
        async with trio.open_nursery() as waiting:
            waiting.start_soon(self._report_slow_nats)
            async with trio.open_nursery() as starting:
                for number, listener in enumerate(self._listeners):
                    slot = WorkerSlot(
                        number, listener, settings, embedded=self._settings.embedded, control=self._control
                    )
                    starting.start_soon(nursery.start, keep_running, slot, self._alive)
            waiting.cancel_scope.cancel()

    async def _report_slow_nats(self) -> None:
        """An external NATS that does not answer is waited for, and the log says so."""
        if self._settings.embedded:
            return
        await trio.sleep(SLOW_SECONDS)
        where = ", ".join(url.partition("://")[2] for url in self._settings.nats_urls)
        _log.info("connecting to NATS at %s ...", where)

    async def _sleep_and_close(self) -> None:
        """Sleep until cancelled, then refuse new clients at once: the accept queues are no longer served."""
        try:
            await trio.sleep_forever()
        finally:
            for listener in (*self._listeners, *filter(None, [self._control_listener])):
                listener.close()

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The first signal stops the server in order, any further one kills what is left."""
        with trio.open_signal_receiver(*_ending_signals()) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if self._stopping.cancel_called:
                    _log.warning("%s again: killing what is left", name)
                    self._kill()
                else:
                    _log.info("%s: stopping", name)
                    self._stopping.cancel()

    def _kill(self) -> None:
        self._killing.cancel()  # in the same step as the kills, so that nothing is restarted
        for child in self._alive:
            child.kill()

    def _state(self, settings: Settings) -> ServeState:
        state = self._engines_state(settings)
        if not self._settings.embedded:
            return state
        return msgspec.structs.replace(
            state,
            nats_user=PRODUCER_USER,
            nats_password=self._producer_password,
            engine_user=settings.nats_user,
            engine_password=settings.nats_password,
        )

    def _engines_state(self, settings: Settings) -> ServeState:
        return ServeState(
            pid=os.getpid(),
            started=time.time(),
            url=self._url,
            nats=",".join(settings.nats_urls),
            nats_token=settings.nats_token,
            nats_user=settings.nats_user,
            nats_password=settings.nats_password,
            nats_creds=_absolute(settings.nats_creds),
            nats_nkey=_absolute(settings.nats_nkey),
            nats_tls_ca=_absolute(settings.nats_tls_ca),
            nats_tls_cert=_absolute(settings.nats_tls_cert),
            nats_tls_key=_absolute(settings.nats_tls_key),
            token_secret=settings.tokens.secret,
            asks=subjects_asked(settings),
            control=settings.control,
            owner=os.getppid() if dies_with_parent() else 0,
        )


def _absolute(path: str) -> str:
    """For programs with another working directory; "" stays."""
    return path and os.path.abspath(path)  # noqa: PTH100  # a text, as all of the state


def _ending_signals() -> list[signal.Signals]:
    """SIGHUP is ignored under nohup, and stays so: the server outlives the terminal."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] if ignored else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _check_tls(settings: Settings) -> None:
    """Check once, here, instead of in each worker."""
    try:
        load_tls(settings.engine)
    except OSError as error:
        raise ServeError(f"{error}; check engine.ssl_certfile and engine.ssl_keyfile") from None


@contextmanager
def _listening(settings: Settings, state_directory: Path) -> Iterator[list[socket.socket]]:
    """A listening socket for each worker. Raises ServeError, which names the other server if it is this user's."""
    try:
        with open_listeners(settings.host, settings.port, settings.workers) as listeners:
            yield listeners
    except PortTakenError:
        other = running_server(state_directory, settings.port)
        if other is None:
            raise
        raise ServeError(
            f"fanline serve already runs here (pid {other.pid}, {other.url}); "
            "a second one needs its own --port and --data-dir"
        ) from None


@contextmanager
def _control_listener(settings: Settings) -> Iterator[socket.socket | None]:
    """The listening socket of `control_port`, if there is to be one. Raises ServeError."""
    if not (settings.control and settings.control_port):
        yield None
        return
    with open_listeners(settings.host, settings.control_port, 1, setting="control_port") as (listener,):
        yield listener
