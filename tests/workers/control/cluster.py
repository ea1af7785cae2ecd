"""A control process's application beside a real engine, in one process with a bus in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AuthMode, TokenSettings
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.cluster.members import Members
from fanline.engine.namespaces import Namespaces
from fanline.workers.configuration.settings import Settings
from fanline.workers.control.app import PREFIX, make_app
from fanline.workers.control.callers import Callers
from fanline.workers.control.cluster import Cluster
from fanline.workers.control.entrances import Forwarded
from fanline.workers.control.keys import ApiKeys
from fanline.workers.control.parts import ControlParts, audit_of, server_info
from fanline.workers.control.publishing import BackendPublisher
from tests.engine.running import RunningEngine, running_engine

Call = Callable[..., Awaitable[httpx.Response]]


class Managed(NamedTuple):
    """Two engines of one cluster, and `call(method, path, body)`."""

    one: RunningEngine
    other: RunningEngine
    call: Call


@asynccontextmanager
async def managed(access: Access | None = None) -> AsyncIterator[Managed]:
    """Both engines answer when the block begins. `access`: theirs."""
    namespaces = Namespaces()
    broker = MemoryBroker(namespaces)
    async with (
        running_engine(broker=broker, access=access) as one,
        running_engine(broker=broker, access=access) as other,
    ):
        settings, bus = Settings(data_dir="/none"), MemoryBus(broker)
        keys, url = ApiKeys(bus), f"ws://{one.host}:{one.port}/ws"
        parts = ControlParts(
            settings=settings,
            namespaces=namespaces,
            bus=bus,
            cluster=Cluster(bus, Members(bus)),
            keys=keys,
            callers=Callers(keys, Access(AuthMode.DEVELOPMENT, TokenSettings())),
            audit=audit_of(settings, bus),
            publisher=BackendPublisher(bus, namespaces),
            info=server_info(settings, namespaces, url),
            url=url,
        )
        transport = httpx.ASGITransport(app=Forwarded(make_app(parts)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def call(method: str, path: str, body: Any = None) -> httpx.Response:
                return await client.request(method, f"{PREFIX}{path}", json=body)

            while (await call("GET", "/stats")).json().get("workers", {}).get("answered") != 2:
                await trio.sleep(0.01)
            yield Managed(one, other, call)
