"""The control process as the supervisor sees it."""

import socket
import sys

import msgspec

from fanline.workers.configuration.settings import Settings
from fanline.workers.supervision.reporting import Order, ReportingProcess

COMMAND = (sys.executable, "-P", "-m", "fanline.workers.control.main")
STOP_SECONDS = 5.0  # it has the lowest priority, and on a busy machine little time for its end


class ControlOrder(msgspec.Struct, frozen=True):
    """What the process needs."""

    report_fd: int
    path: str
    """Of the socket to which workers pass requests on."""
    url: str
    """The server's WebSocket endpoint."""
    port_fd: int | None
    """The listening socket of `control_port`, if there is one."""
    settings: Settings


class ControlProcess(ReportingProcess):
    """One for a server, whatever the number of its workers."""

    def __init__(
        self,
        settings: Settings,
        path: str,
        url: str,
        listener: socket.socket | None,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        """`settings`: with those of the embedded NATS; the rest as in ControlOrder."""
        super().__init__("control", command, stop_seconds=STOP_SECONDS, hang_seconds=settings.hang_timeout)
        self._settings = settings
        self._path = path
        self._url = url
        self._listener = listener

    def order(self, report_fd: int) -> Order:
        listener = None if self._listener is None else self._listener.fileno()
        order = ControlOrder(report_fd, self._path, self._url, listener, self._settings)
        return Order(order, () if listener is None else (listener,))
