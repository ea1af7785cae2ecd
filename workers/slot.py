"""A worker slot as the supervisor sees it: its listening socket, and the worker process that serves it now."""

import os
import socket
import sys

import msgspec
import trio

from workers.child import Child
from workers.errors import ServeError
from workers.settings import ENV_PREFIX, Settings

READY = "ready"
"""What a worker writes on its readiness pipe; anything else it writes is the sentence why it cannot serve."""

STOP_GRACE = 0.5
"""Seconds a worker gets, beyond the drain timeout, to end after its clients are gone."""

COMMAND = (sys.executable, "-P", "-m", "workers.worker")


class WorkerOrder(msgspec.Struct, frozen=True):
    """All a worker is told, as JSON on its stdin: never as arguments or environment, since it holds secrets."""

    slot: int
    listener_fd: int
    ready_fd: int
    settings: Settings


class WorkerSlot:
    """The process is replaced, slot and socket stay."""

    def __init__(
        self, number: int, listener: socket.socket, settings: Settings, command: tuple[str, ...] = COMMAND
    ) -> None:
        self.name = f"worker {number}"
        self.stop_seconds = settings.drain_timeout + STOP_GRACE
        self._number = number
        self._listener = listener
        self._settings = settings
        self._command = command
        self._ready_fd = -1

    def launch(self) -> Child:
        self._ready_fd, worker_end = os.pipe()
        order = WorkerOrder(self._number, self._listener.fileno(), worker_end, self._settings)
        try:
            return Child(
                self._command,
                stdin=msgspec.json.encode(order),
                pass_fds=(order.listener_fd, order.ready_fd),
                environ={key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)},
                stdout=sys.stderr.fileno(),  # our stdout has one line: ready
            )
        except OSError:
            os.close(self._ready_fd)
            raise
        finally:
            os.close(worker_end)

    async def wait_ready(self, child: Child) -> None:
        said = b""
        async with trio.lowlevel.FdStream(self._ready_fd) as pipe:
            async for data in pipe:  # ends when the worker closes its end, at the latest by dying
                said += data
        sentence = said.decode(errors="replace").strip()
        if sentence == READY:
            return
        if not sentence:
            await child.wait()
            sentence = f"ended before it was ready ({child.ending})"
        raise ServeError(f"{self.name}: {sentence}")
