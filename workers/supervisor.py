"""The supervisor: owns the listening sockets and keeps nats-server and one worker per slot alive. Knows no protocol."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import trio

from protocol.serve_state import ServeState
from workers.child import Child
from workers.listeners import open_listeners, websocket_url
from workers.nats_server import run_nats_server
from workers.service import keep_running
from workers.settings import Settings
from workers.slot import WorkerSlot
from workers.state_file import published

_log = logging.getLogger("fanline.supervisor")


async def supervise(settings: Settings, state_directory: Path, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` gets the one line that tells that it is ready.

    ServeError, perhaps in an exception group, when it cannot start. Afterwards no process is left.
    """
    alive: set[Child] = set()
    stop = trio.CancelScope()
    with open_listeners(settings.host, settings.port, settings.workers) as listeners:
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, stop, alive)
            with stop:
                worker_settings = await _start_nats(nursery, settings, alive)
                state = _state(listeners[0], worker_settings)
                async with trio.open_nursery() as workers:
                    await _start_workers(workers, listeners, worker_settings, alive)
                    with published(state, state_directory, listeners[0].getsockname()[1]):
                        announce(ready_line(state, settings))
                        await _sleep_and_close(listeners)
            nursery.cancel_scope.cancel()  # nats-server last: workers tell it what they still have
    _log.info("stopped")


def ready_line(state: ServeState, settings: Settings) -> str:
    """The line on stdout that programs and people wait for."""
    workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
    kind = "embedded" if settings.embedded else "external"
    mode = "development mode: no authentication, everything is allowed"
    return f"fanline ready: {state.url}  {workers}  {state.nats} ({kind})  {mode}"


async def _watch_signals(
    stop: trio.CancelScope, alive: set[Child], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal stops in order, any further one kills what is left."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if not stop.cancel_called:
                _log.info("%s: stopping", name)
                stop.cancel()
            else:
                _log.warning("%s again: killing what is left", name)
                for child in alive:
                    child.kill()


async def _start_nats(nursery: trio.Nursery, settings: Settings, alive: set[Child]) -> Settings:
    """The settings as workers get them: with the URL and token of the embedded server, if that is wanted."""
    if not settings.embedded:
        return settings
    server = await nursery.start(run_nats_server, Path(settings.data_dir), alive)
    return msgspec.structs.replace(settings, nats=server.url, nats_token=server.token)


async def _start_workers(
    nursery: trio.Nursery, listeners: Sequence[socket.socket], settings: Settings, alive: set[Child]
) -> None:
    """All at once; returns when each is ready."""
    async with trio.open_nursery() as starting:
        for number, listener in enumerate(listeners):
            starting.start_soon(nursery.start, keep_running, WorkerSlot(number, listener, settings), alive)


async def _sleep_and_close(listeners: Sequence[socket.socket]) -> None:
    """Until cancelled; then a new client is refused at once instead of waiting in a queue that nobody serves."""
    try:
        await trio.sleep_forever()
    finally:
        for listener in listeners:
            listener.close()


def _state(listener: socket.socket, settings: Settings) -> ServeState:
    return ServeState(
        pid=os.getpid(),
        started=time.time(),
        url=websocket_url(listener),
        nats=settings.nats_urls[0],
        nats_token=settings.nats_token,
        nats_user=settings.nats_user,
        nats_password=settings.nats_password,
        nats_creds=settings.nats_creds,
    )
