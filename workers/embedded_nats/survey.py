"""What is done in the store before its first client comes: the new start is noted in every stream."""

import trio

from fanline.engine.bus.interface import BusError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.streams import begin_start
from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.errors import ServeError


async def note_start(url: str, token: str) -> None:
    """Note it in the store of a nats-server that no one else knows of. Raises ServeError."""
    bus = NatsBus(NatsOptions((url,), token=token), "start", Namespaces())
    try:
        await bus.client.connect()
        async with trio.open_nursery() as nursery:
            carrier = trio.CancelScope()
            nursery.start_soon(bus.carry, carrier)
            try:
                await bus.open_inbox()
                await begin_start(bus.api)
            finally:
                carrier.cancel()
    except* BusError as errors:
        raise ServeError(f"the streams of the embedded nats-server cannot be changed: {errors.exceptions[0]}") from None
