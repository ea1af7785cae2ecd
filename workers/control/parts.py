"""What the calls need, put together: the bus, the workers, and who may call."""

from collections.abc import Iterable
from functools import partial
from importlib import metadata
from typing import Annotated, NamedTuple

import trio
from fastapi import Depends, Request

from fanline.engine.access.access import Access
from fanline.engine.access.audit import Audit
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.revoked.revocations import Revocations
from fanline.engine.bus.interface import Bus, OnLoss
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.work import NatsWork
from fanline.engine.cluster.members import Members
from fanline.engine.namespaces import Namespaces
from fanline.engine.routes import DEFAULTS
from fanline.protocol.dialects import BY_SUBPROTOCOL
from fanline.protocol.nats.names import AUDIT_SUBJECT
from fanline.workers.access import make_access
from fanline.workers.configuration.monitor import alarms_of
from fanline.workers.configuration.settings import Settings
from fanline.workers.control.api.models import ApiInfo
from fanline.workers.control.cluster import Cluster
from fanline.workers.control.http.callers import Callers
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.announcer import SystemAnnouncer
from fanline.workers.control.monitoring.desk import DeskParts, MonitorDesk
from fanline.workers.control.monitoring.leadership import Leadership
from fanline.workers.control.monitoring.minutes import Minutes
from fanline.workers.control.monitoring.reporter import Reporter
from fanline.workers.control.notifying.service import Notifications
from fanline.workers.control.publishing import BackendPublisher


class ControlParts(NamedTuple):
    """Of one server."""

    settings: Settings
    namespaces: Namespaces
    bus: Bus
    cluster: Cluster
    keys: ApiKeys
    callers: Callers
    audit: Audit
    publisher: BackendPublisher
    minutes: Minutes
    alarms: Alarms
    info: ApiInfo
    url: str
    """The server's WebSocket endpoint, as it is reached from this machine."""
    notifications: Notifications


async def open_parts(settings: Settings, url: str, bus: NatsBus, nursery: trio.Nursery) -> ControlParts:
    """Make the parts, and start what runs in the background. ServeError if a key cannot be used; BusError."""
    namespaces = Namespaces(settings.engine.namespaces)
    members, keys, access = Members(bus, "control"), ApiKeys(bus), make_access(settings, bus)
    leadership, cluster = Leadership(bus, members.id), Cluster(bus, members)
    announcer = SystemAnnouncer(bus, namespaces, leadership.check)
    reporter = Reporter(announcer)
    on_back: list[OnLoss] = [reporter.bus_is_back]
    bus.attach(lambda *_: None, partial(_tell_all, on_back))
    await _follow_revocations(access, bus, nursery, on_back)
    await keys.watch()
    nursery.start_soon(members.watch)
    notifications = Notifications(settings.notifications, bus, NatsWork(bus), namespaces)
    notifications.start(nursery)
    minutes, alarms = Minutes(bus), Alarms(bus, alarms_of(settings.alarms), announcer)
    parts = DeskParts(
        bus, cluster, members, leadership, minutes, alarms, reporter, settings.monitor, url, settings.workers
    )
    nursery.start_soon(MonitorDesk(parts).run)
    return ControlParts(
        settings=settings,
        namespaces=namespaces,
        bus=bus,
        cluster=cluster,
        minutes=minutes,
        alarms=alarms,
        keys=keys,
        callers=Callers(keys, access),
        audit=audit_of(settings, bus),
        publisher=BackendPublisher(bus, namespaces),
        info=server_info(settings, namespaces, url, members.own.server),
        url=url,
        notifications=notifications,
    )


def _tell_all(listeners: Iterable[OnLoss], sound_until: float) -> None:
    """The bus is back."""
    for each in listeners:
        each(sound_until)


async def _follow_revocations(access: Access, bus: Bus, nursery: trio.Nursery, on_back: list[OnLoss]) -> None:
    """Read which tokens were revoked before the first one is accepted. BusError."""
    if access.verifier is None and access.authenticator is None:
        return
    revocations = Revocations(bus)
    on_back.append(lambda _: revocations.bus_is_back())
    access.is_revoked = revocations.covers
    await revocations.read()
    nursery.start_soon(revocations.run, lambda: None)
    if access.verifier is not None:
        nursery.start_soon(access.verifier.run)


def audit_of(settings: Settings, bus: Bus) -> Audit:
    """Where the workers write, the control process writes as well."""
    tell = partial(bus.tell, AUDIT_SUBJECT) if settings.engine.audit_events else None
    return Audit(settings.engine.audit_log, "control", tell)


def server_info(settings: Settings, namespaces: Namespaces, url: str, server: str) -> ApiInfo:
    """What `info` answers."""
    engine = settings.engine
    routes = {**DEFAULTS, **engine.routes}
    return ApiInfo(
        version=_version(),
        server=server,
        endpoint="/" + url.partition("://")[2].partition("/")[2],
        protocols=[*BY_SUBPROTOCOL, "plain"],
        max_connections=engine.max_connections * settings.workers or None,
        workers=settings.workers,
        auth=settings.auth,
        heartbeat=engine.heartbeat,
        max_message_bytes=engine.max_message_bytes,
        routes=sorted(pattern for pattern, route in routes.items() if route.enabled),
        namespaces=sorted(namespaces.names()),
    )


def _version() -> str:
    try:
        return metadata.version("fanline")
    except metadata.PackageNotFoundError:  # it runs from a tree that is not installed
        return "unknown"


async def _parts_of(request: Request) -> ControlParts:  # FastAPI would call a plain function in a thread
    parts: ControlParts = request.app.state.parts
    return parts


Parts = Annotated[ControlParts, Depends(_parts_of)]
