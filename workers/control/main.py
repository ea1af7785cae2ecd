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

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from fanline.engine.bus.interface import BusError
from fanline.engine.bus.nats.bus import open_nats_bus
from fanline.engine.namespaces import Namespaces
from fanline.engine.settings import EngineSettings
from fanline.engine.unix_socket import socket_address
from fanline.workers.control.app import make_app
from fanline.workers.control.entrances import Entrance, Forwarded, OwnPort
from fanline.workers.control.parts import open_parts
from fanline.workers.control.service import ControlOrder
from fanline.workers.errors import ServeError, first_leaf
from fanline.workers.logs import configure_logging
from fanline.workers.supervision.reporting import READY, keep_beating, report
from fanline.workers.worker import nats_options

_BACKLOG = 256


def main() -> int:
    """Answer requests until SIGTERM. Returns the exit code: 1 if it cannot, as reported."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=ControlOrder)
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
        app = make_app(await open_parts(order.settings, order.url, bus, nursery))
        with _listening(order.path) as unix:
            await _serve(nursery, Forwarded(app), unix)
            if order.port_fd is not None:
                await _serve(nursery, OwnPort(app, engine), order.port_fd, engine)
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                report(order.report_fd, READY)
                nursery.start_soon(keep_beating, order.report_fd)
                async for _ in signals:
                    break
        nursery.cancel_scope.cancel()


async def _serve(nursery: trio.Nursery, app: Entrance, descriptor: int, tls: EngineSettings | None = None) -> None:
    """Serve on a listening socket; with TLS if the settings have it."""
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.backlog = _BACKLOG
    config.include_server_header = False
    config.errorlog = logging.getLogger("fanline.http")
    config.alpn_protocols = ["http/1.1"]
    if tls is not None and tls.ssl_certfile:
        config.certfile, config.keyfile = tls.ssl_certfile, tls.ssl_keyfile or None
    await nursery.start(partial(serve, app, config, mode="asgi"))  # type: ignore[arg-type]  # an ASGI application


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
