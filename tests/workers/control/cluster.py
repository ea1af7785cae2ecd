"""A control process's application beside a real engine, in one process with a bus in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.settings import AuthMode, TokenSettings
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.memory.work import MemoryWork
from fanline.engine.cluster.members import Members
from fanline.engine.namespaces import Namespaces
from fanline.workers.configuration.monitor import alarms_of
from fanline.workers.configuration.settings import Settings
from fanline.workers.control.app import PREFIX
from fanline.workers.control.cluster import Cluster
from fanline.workers.control.http.callers import Callers
from fanline.workers.control.http.forwarded import Forwarded
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.announcer import SystemAnnouncer
from fanline.workers.control.monitoring.minutes import Minutes
from fanline.workers.control.notifying.service import Notifications
from fanline.workers.control.parts import ControlParts, audit_of, server_info
from fanline.workers.control.publishing import BackendPublisher
from tests.engine.running import RunningEngine, running_engine
from tests.workers.control.test_callers import app_with

Call = Callable[..., Awaitable[httpx.Response]]


class Managed(NamedTuple):
    """Two engines of one cluster, and `call(method, path, body)`, with the body as an object, or as `content`."""

    one: RunningEngine
    other: RunningEngine
    call: Call


@asynccontextmanager
async def managed(access: Access | None = None, workers: int = 2) -> AsyncIterator[Managed]:
    """Both engines answer when the block begins. `access`: theirs; `workers`: how many there should be."""
    namespaces = Namespaces()
    broker = MemoryBroker(namespaces)
    async with (
        running_engine(broker=broker, access=access, name="worker-0") as one,
        running_engine(broker=broker, access=access, name="worker-1") as other,
    ):
        settings, bus = Settings(data_dir="/none", workers=workers), MemoryBus(broker)
        keys, url = ApiKeys(bus), f"ws://{one.host}:{one.port}/ws"
        members = Members(bus, "control")
        announcer = SystemAnnouncer(bus, namespaces, lambda: None)
        cluster = Cluster(bus, members, seconds=20.0)  # all answer, on a busy machine too
        minutes, alarms = Minutes(bus), Alarms(bus, alarms_of(settings.alarms), announcer)
        parts = ControlParts(
            settings=settings,
            namespaces=namespaces,
            bus=bus,
            cluster=cluster,
            minutes=minutes,
            alarms=alarms,
            keys=keys,
            callers=Callers(keys, Access(AuthMode.DEVELOPMENT, TokenSettings())),
            audit=audit_of(settings, bus),
            publisher=BackendPublisher(bus, namespaces),
            info=server_info(settings, namespaces, url, members.own.server),
            url=url,
            notifications=Notifications(settings.notifications, bus, MemoryWork(), namespaces),
        )
        transport = httpx.ASGITransport(app=Forwarded(app_with(parts)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def call(method: str, path: str, body: Any = None, content: bytes | None = None) -> httpx.Response:
                headers = {"content-type": "application/json"} if content is not None else {}
                return await client.request(method, f"{PREFIX}{path}", json=body, content=content, headers=headers)

            while (await call("GET", "/stats")).json().get("workers", {}).get("answered") != 2:
                await trio.sleep(0.01)
            yield Managed(one, other, call)
