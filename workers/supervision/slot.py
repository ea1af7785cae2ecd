"""A worker slot as the supervisor sees it: its listening socket, and the worker process that serves it now."""

import socket
import sys

import msgspec

from fanline.workers.configuration.settings import Settings
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.reporting import Order, ReportingProcess

STOP_GRACE = 1.5
"""Seconds that a worker has, beyond the drain timeout, to end after its clients are gone. With a frozen NATS, giving up
the monitor's lease and draining the bus take 0.8 of them.
"""

_IN_ORDER = "exit code 0"
COMMAND = (sys.executable, "-P", "-m", "fanline.workers.worker")


class WorkerOrder(msgspec.Struct, frozen=True):
    """What a worker needs."""

    slot: int
    listener_fd: int
    report_fd: int
    settings: Settings
    embedded: bool
    """Whether NATS is the supervisor's."""
    control: str = ""
    """The path of the control process's socket; "" if there is none."""
    died: str = ""
    """How the worker before it died; "" if there was none, or if it had been told to end."""


class WorkerSlot(ReportingProcess):
    """The process is replaced; slot and socket stay."""

    def __init__(
        self,
        number: int,
        listener: socket.socket,
        settings: Settings,
        command: tuple[str, ...] = COMMAND,
        *,
        embedded: bool = False,
        control: str = "",
    ) -> None:
        """`settings`: for the worker; `embedded`, `control`: as in WorkerOrder."""
        super().__init__(
            f"worker {number}",
            command,
            stop_seconds=settings.drain_timeout + STOP_GRACE,
            hang_seconds=settings.hang_timeout,
        )
        self._number = number
        self._listener = listener
        self._settings = settings
        self._embedded = embedded
        self._control = control
        self._newest: Child | None = None

    def launch(self) -> Child:
        self._newest = super().launch()
        return self._newest

    def order(self, report_fd: int) -> Order:
        listener_fd = self._listener.fileno()
        order = WorkerOrder(
            self._number, listener_fd, report_fd, self._settings, self._embedded, self._control, self._died()
        )
        return Order(order, (listener_fd,))

    def _died(self) -> str:
        """How the newest process of this slot died."""
        ending = None if self._newest is None else self._newest.ending
        return "" if ending in (None, _IN_ORDER) else ending
