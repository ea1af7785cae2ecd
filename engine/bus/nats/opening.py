"""Opens the bus on NATS for as long as a block runs: the connection, the streams, and the task that carries both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.options import NatsOptions


@asynccontextmanager
async def open_nats_bus(
    options: NatsOptions,
    name: str,
    namespaces: Namespaces | None = None,
    *,
    bucket_bytes: int = -1,
    reports_full: bool = True,
) -> AsyncIterator[NatsBus]:
    """A connected bus; the streams of durable namespaces exist. BusError if NATS cannot be used as it is.

    `bucket_bytes`: as in EngineSettings; `reports_full`: whether to log that the store is full, which of the embedded
    server the supervisor does.
    """
    bus = NatsBus(options, name, namespaces or Namespaces(), bucket_bytes)
    bus.full_store.reports = reports_full
    await bus.client.connect()
    refusal: BusError | None = None
    async with trio.open_nursery() as nursery:
        carrier = trio.CancelScope(shield=True)  # tasks that are cancelled may send something as they end
        nursery.start_soon(bus.carry, carrier)
        try:
            await bus.prepare()
            nursery.start_soon(bus.streams.run)
            yield bus
        except BusError as error:  # not raised in here: the nursery would wrap it in an exception group
            refusal = error
        finally:
            await bus.client.drain()
            carrier.cancel()
        nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
