"""Prepares the store before its first client connects: notes the start, and brings streams within the limits."""

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.streams.streams import begin_start, ensure_streams
from fanline.engine.namespaces import Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.errors import ServeError, first_leaf


async def prepare_store(url: str, user: str, password: str, settings: EngineSettings) -> int:
    """Prepare the store of a nats-server that no other program knows of, and that has no limit of its own: JetStream
    changes no stream, not even to a smaller size, while all streams together may hold more than it may store.

    Returns how many bytes all streams together may hold. Raises ServeError.
    """
    bus = NatsBus(NatsOptions((url,), user=user, password=password), "start", Namespaces(settings.namespaces))
    reserved = 0
    try:
        await bus.client.connect()
        async with trio.open_nursery() as nursery:
            carrier = trio.CancelScope()
            nursery.start_soon(bus.carry, carrier)
            try:
                await bus.open_inbox()
                await begin_start(bus.api)
                await ensure_streams(bus.api, Namespaces(settings.namespaces), settings.bucket_bytes)
                reserved = int((await bus.api("INFO", "", b""))["reserved_storage"])
            finally:
                carrier.cancel()
    except* BusError as errors:
        raise ServeError(f"the embedded nats-server cannot be used: {first_leaf(errors)}") from None
    return reserved
