"""The supervisor: owns the listening sockets and keeps nats-server and one worker per slot alive. Knows no protocol."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio

from fanline.engine.sending.transport import load_tls
from fanline.protocol.serve_state import ServeState
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError
from fanline.workers.nats_server import run_nats_server
from fanline.workers.state_file import published, running_server
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.listeners import PortTakenError, open_listeners, websocket_url
from fanline.workers.supervision.service import keep_running
from fanline.workers.supervision.slot import WorkerSlot

SLOW_SECONDS = 1.0
"""After so long a start says what it waits for."""

_log = logging.getLogger("fanline.supervisor")


async def supervise(settings: Settings, state_directory: Path, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; `announce` gets the one line that tells that it is ready.

    ServeError, perhaps in an exception group, when it cannot start. Afterwards no process is left.
    """
    alive: set[Child] = set()
    stop, force = trio.CancelScope(), trio.CancelScope()
    _check_tls(settings)
    with _listening(settings, state_directory) as listeners:
        async with trio.open_nursery() as watching:
            await watching.start(_watch_signals, stop, force, alive)
            with force:
                await _serve(settings, listeners, state_directory, announce, stop, alive)
            watching.cancel_scope.cancel()
    _log.info("stopped")


def ready_line(state: ServeState, settings: Settings) -> str:
    """The line on stdout that programs and people wait for."""
    workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
    kind = "embedded" if settings.embedded else "external"
    mode = "development mode: no authentication, everything is allowed"
    return f"fanline ready: {state.url}  {workers}  {state.nats} ({kind})  {mode}"


async def _serve(
    settings: Settings,
    listeners: Sequence[socket.socket],
    state_directory: Path,
    announce: Callable[[str], None],
    stop: trio.CancelScope,
    alive: set[Child],
) -> None:
    url = websocket_url(listeners[0], tls=bool(settings.engine.ssl_certfile))
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        with stop:
            worker_settings = await _start_nats(nursery, settings, url, alive)
            nursery.start_soon(_tell_if_slow, settings, ready)
            state = _state(url, worker_settings)
            async with trio.open_nursery() as workers:
                await _start_workers(workers, listeners, worker_settings, alive)
                ready.set()
                with published(state, state_directory, listeners[0].getsockname()[1]):
                    announce(ready_line(state, settings))
                    await _sleep_and_close(listeners)
        nursery.cancel_scope.cancel()  # nats-server last: workers tell it what they still have


def _check_tls(settings: Settings) -> None:
    """Once, here, instead of in each worker."""
    try:
        load_tls(settings.engine)
    except OSError as error:
        raise ServeError(f"{error}; check engine.ssl_certfile and engine.ssl_keyfile") from None


@contextmanager
def _listening(settings: Settings, state_directory: Path) -> Iterator[list[socket.socket]]:
    """A listening socket for each worker; ServeError that says who has the port already, if that is one of us."""
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


async def _watch_signals(
    stop: trio.CancelScope,
    force: trio.CancelScope,
    alive: set[Child],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The first signal stops in order, any further one kills what is left."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants us to outlive the terminal
        numbers.append(signal.SIGHUP)
    with trio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if not stop.cancel_called:
                _log.info("%s: stopping", name)
                stop.cancel()
            else:
                _log.warning("%s again: killing what is left", name)
                force.cancel()  # in the same step as the kills, so that nobody starts anything again
                for child in alive:
                    child.kill()


async def _start_nats(nursery: trio.Nursery, settings: Settings, url: str, alive: set[Child]) -> Settings:
    """The settings as workers get them: with the URL and token of the embedded server, if that is wanted."""
    if not settings.embedded:
        return settings
    owner = f"pid {os.getpid()}, {url}"
    server = await nursery.start(run_nats_server, Path(settings.data_dir), owner, alive)
    return msgspec.structs.replace(settings, nats=server.url, nats_token=server.token)


async def _start_workers(
    nursery: trio.Nursery, listeners: Sequence[socket.socket], settings: Settings, alive: set[Child]
) -> None:
    """All at once; returns when each is ready."""
    async with trio.open_nursery() as starting:
        for number, listener in enumerate(listeners):
            starting.start_soon(nursery.start, keep_running, WorkerSlot(number, listener, settings), alive)


async def _tell_if_slow(settings: Settings, ready: trio.Event) -> None:
    """A NATS of somebody else that does not answer is waited for some seconds; nobody shall wonder what for."""
    if settings.embedded:
        return
    with trio.move_on_after(SLOW_SECONDS) as patience:
        await ready.wait()
    if patience.cancelled_caught:
        where = ", ".join(url.partition("://")[2] for url in settings.nats_urls)
        _log.info("connecting to NATS at %s ...", where)


async def _sleep_and_close(listeners: Sequence[socket.socket]) -> None:
    """Until cancelled; then a new client is refused at once instead of waiting in a queue that nobody serves."""
    try:
        await trio.sleep_forever()
    finally:
        for listener in listeners:
            listener.close()


def _state(url: str, settings: Settings) -> ServeState:
    return ServeState(
        pid=os.getpid(),
        started=time.time(),
        url=url,
        nats=settings.nats_urls[0],
        nats_token=settings.nats_token,
        nats_user=settings.nats_user,
        nats_password=settings.nats_password,
        nats_creds=settings.nats_creds,
    )
