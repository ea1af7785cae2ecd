"""The control process: one Trio loop, a connection to NATS, and FastAPI on Hypercorn. Started by the supervisor only.

It may hang, crash or be killed: workers answer 503 for it meanwhile, and the supervisor starts it again.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.namespaces import Namespaces
from fanline.engine.sockets.control_socket import KEPT_SECONDS
from fanline.protocol.unix_socket import socket_address
from fanline.workers.control.app import make_app
from fanline.workers.control.http.forwarded import Forwarded
from fanline.workers.control.http.own_port import OwnPort
from fanline.workers.control.parts import open_parts
from fanline.workers.control.service import ControlOrder
from fanline.workers.errors import ServeError, first_leaf
from fanline.workers.logs import configure_logging
from fanline.workers.process_name import name_process
from fanline.workers.supervision.reporting import READY, keep_beating, report
from fanline.workers.worker import nats_options

_BACKLOG = 256
_KEPT_SECONDS = 12 * KEPT_SECONDS
"""How long a connection may wait for its next request: workers close theirs first."""
NICENESS = 10
"""Where processors are scarce, messages to clients come first, and answers of the API second."""


def main() -> int:
    """Answer requests until SIGTERM. Returns the exit code: 1 if it cannot, as reported."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=ControlOrder)
    name_process("control", "(fanline.workers.control.main)")
    os.nice(NICENESS)
    configure_logging("control")
    logging.getLogger("fanline.http").setLevel(logging.WARNING)
    exit_code = 0
    try:
        trio.run(run, order)
    except* (BusError, OSError, ServeError) as errors:
        report(order.report_fd, str(first_leaf(errors)))
        exit_code = 1
    return exit_code


async def run(order: ControlOrder) -> None:
    """Answer until SIGTERM. Raises BusError, OSError or ServeError, perhaps in an exception group, if it cannot."""
    engine = order.settings.engine
    namespaces = Namespaces(engine.namespaces)
    async with (
        open_nats_bus(
            nats_options(order.settings), "control", namespaces, bucket_bytes=engine.bucket_bytes, reports_full=False
        ) as bus,
        trio.open_nursery() as nursery,
    ):
        parts = await open_parts(order.settings, order.url, bus, nursery)
        with _listening(order.path) as unix:
            app: Any = Forwarded(make_app(parts))  # an ASGI application, of which Starlette has other types
            await nursery.start(partial(serve, app, _config(unix), mode="asgi"))
            if order.port_fd is not None:
                port = OwnPort(engine, order.path, parts.audit)
                nursery.start_soon(port.serve, socket.socket(fileno=order.port_fd))
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                report(order.report_fd, READY)
                nursery.start_soon(keep_beating, order.report_fd)
                async for _ in signals:
                    break
        nursery.cancel_scope.cancel()


def _config(descriptor: int) -> Config:
    """For a listening socket."""
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.backlog = _BACKLOG
    config.keep_alive_timeout = _KEPT_SECONDS
    config.include_server_header = False
    config.errorlog = logging.getLogger("fanline.http")
    config.alpn_protocols = ["http/1.1"]
    return config


@contextmanager
def _listening(path: str) -> Iterator[int]:
    """A listening socket for this user alone, in place of one that a killed process has left. OSError."""
    draft = Path(f"{path}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        draft.unlink(missing_ok=True)
        with socket_address(str(draft)) as address:
            mask = os.umask(0o177)
            try:
                listener.bind(address)
            finally:
                os.umask(mask)
        listener.listen(_BACKLOG)
        draft.replace(path)
        yield listener.detach()
    finally:
        listener.close()
        Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
