"""Worker main: one process, one Trio loop, one inherited listening socket. Started by the supervisor only."""

import gc
import logging
import signal
import socket
import sys

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.faults import FatalError
from fanline.engine.hooks.settings import served_hooks
from fanline.engine.namespaces import Namespaces
from fanline.engine.server import Server
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.access import make_access
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError, first_leaf
from fanline.workers.logs import configure_logging
from fanline.workers.process_name import name_process
from fanline.workers.supervision.reporting import READY, keep_beating, report
from fanline.workers.supervision.slot import WorkerOrder

_log = logging.getLogger("fanline.worker")


def main() -> int:
    """Serve until SIGTERM, then drain. Returns the exit code: 1 if it cannot serve with these settings, as reported, or
    after a fault, as logged.
    """
    exit_code = 0
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerOrder)
    name_process(f"worker {order.slot}", "(fanline.workers.worker)")
    configure_logging(f"worker {order.slot}")
    try:
        trio.run(serve_slot, order)
    except* (BusError, ServeError) as errors:
        report(order.report_fd, str(first_leaf(errors)))
        exit_code = 1
    except* FatalError:  # logged where it happened
        exit_code = 1
    except* Exception:  # noqa: BLE001  # a fault of ours, as of the bus's own tasks
        _log.critical("a fault of the server ends this worker", exc_info=True)
        exit_code = 1
    return exit_code


async def serve_slot(order: WorkerOrder) -> None:
    """One worker's life. Raises BusError or ServeError, perhaps in an exception group, if it cannot start."""
    listener = socket.socket(fileno=order.listener_fd)
    listener.setblocking(False)
    async with open_nats_bus(
        nats_options(order.settings),
        f"worker-{order.slot}",
        Namespaces(order.settings.engine.namespaces),
        bucket_bytes=order.settings.engine.bucket_bytes,
        reports_full=not order.embedded,
    ) as bus:
        server = _server(bus, order)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            # Before this line SIGTERM just kills, as nothing is served yet; from here on it drains.
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                _tune_collector()
                report(order.report_fd, READY)
                nursery.start_soon(keep_beating, order.report_fd)
                async for _ in signals:
                    break
                await server.drain(order.settings.drain_timeout)
                nursery.cancel_scope.cancel()


def _server(bus: Bus, order: WorkerOrder) -> Server:
    try:
        settings = order.settings
        return Server(
            bus,
            settings.engine,
            make_access(settings, bus),
            f"worker-{order.slot}",
            hooks=served_hooks(settings.hooks, settings.webhooks),
            control=order.control,
            died=order.died,
        )
    except OSError as error:  # the TLS files have changed since the supervisor checked them
        raise ServeError(str(error)) from None


def nats_options(settings: Settings) -> NatsOptions:
    """The settings of the bus."""
    return NatsOptions(
        servers=settings.nats_urls,
        user=settings.nats_user,
        password=settings.nats_password,
        token=settings.nats_token,
        creds=settings.nats_creds,
        nkey=settings.nats_nkey,
        tls_ca=settings.nats_tls_ca,
        tls_cert=settings.nats_tls_cert,
        tls_key=settings.nats_tls_key,
    )


def _tune_collector() -> None:
    """A worker creates few reference cycles. Modules and code live as long as the process, so the collector need not
    visit them; and it examines new objects only after as many as a few hundred connections create. The default of 700
    would take a quarter of the time of a handshake.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


if __name__ == "__main__":
    sys.exit(main())
