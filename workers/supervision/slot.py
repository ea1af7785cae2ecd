"""A worker slot as the supervisor sees it: its listening socket, and the worker process that serves it now.

A worker reports on a pipe: first one line, `READY` or the reason why it cannot serve, then a beat every second.
"""

import logging
import os
import socket
import sys

import msgspec
import trio

from fanline.workers.configuration.settings import ENV_PREFIX, Settings
from fanline.workers.errors import ServeError
from fanline.workers.supervision.child import Child

READY = "ready"
"""The line of a worker that serves; any other line is the reason why it cannot."""

BEAT = b"."
BEAT_SECONDS = 1.0

STOP_GRACE = 1.5
"""Seconds that a worker has, beyond the drain timeout, to end after its clients are gone. With a frozen NATS, giving up
the monitor's lease and draining the bus take 0.8 of them.
"""

COMMAND = (sys.executable, "-P", "-m", "fanline.workers.worker")

_log = logging.getLogger("fanline.supervisor")


class WorkerOrder(msgspec.Struct, frozen=True):
    """What a worker needs, as JSON on its stdin. It holds secrets, so it never stands in arguments or environment."""

    slot: int
    listener_fd: int
    report_fd: int
    settings: Settings
    embedded: bool
    """Whether NATS is the supervisor's."""


class WorkerSlot:
    """The process is replaced; slot and socket stay."""

    def __init__(
        self,
        number: int,
        listener: socket.socket,
        settings: Settings,
        command: tuple[str, ...] = COMMAND,
        *,
        embedded: bool = False,
    ) -> None:
        """`settings`: for the worker; `embedded`: whether their NATS is the supervisor's."""
        self.name = f"worker {number}"
        self.stop_seconds = settings.drain_timeout + STOP_GRACE
        self._number = number
        self._listener = listener
        self._settings = settings
        self._embedded = embedded
        self._command = command
        self._hang_seconds = settings.hang_timeout

    async def prepare(self) -> None:
        """Nothing to prepare."""

    def launch(self) -> Child:
        our_end, worker_end = os.pipe()
        self._reports = trio.lowlevel.FdStream(our_end)
        order = WorkerOrder(self._number, self._listener.fileno(), worker_end, self._settings, self._embedded)
        try:
            return Child(
                self._command,
                stdin=msgspec.json.encode(order),
                pass_fds=(order.listener_fd, order.report_fd),
                environ={key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)},
                stdout=sys.stderr.fileno(),  # our stdout has one line, the ready line
            )
        except OSError:
            self._reports.close()
            raise
        finally:
            os.close(worker_end)

    async def wait_ready(self, child: Child) -> None:
        said = b""
        while b"\n" not in said and (data := await self._reports.receive_some()):  # ends with the worker
            said += data
        sentence = said.decode(errors="replace").partition("\n")[0]
        if sentence == READY:
            return
        if not sentence:
            await child.wait()
            sentence = f"ended before it was ready ({child.ending})"
        raise ServeError(f"{self.name}: {sentence}")

    async def wait_ended(self, child: Child) -> None:
        while beat := await self._next_beat():
            pass
        if beat is None:
            _log.warning("%s (pid %d) hung for %g s: killing it", self.name, child.pid, self._hang_seconds)
            child.kill()
        await child.wait()

    async def _next_beat(self) -> bytes | None:
        """What the worker wrote. b"" if it has ended, None if it hangs."""
        # In two halves: after this process itself was stopped, the first one has expired at once, and the second reads
        # what has come meanwhile.
        for _ in range(2):
            with trio.move_on_after(self._hang_seconds / 2):
                return await self._reports.receive_some()
        return None

    def release(self) -> None:
        self._reports.close()
