"""What the parts of every layer are built with."""

from collections.abc import Awaitable, Callable
from functools import partial

from fanline.engine.access.audit import Audit
from fanline.engine.bus.interface import Bus
from fanline.engine.cluster.members import Members
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.hooks.events import Events
from fanline.engine.hooks.settings import ServedHooks
from fanline.engine.limits import LimitHits
from fanline.engine.namespaces import Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.nats.names import AUDIT_SUBJECT

RunVital = Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs, under this name, a task that the whole worker depends on."""


class Basis:
    """The surroundings of one worker, and its records of what happens: counters, logs and events."""

    def __init__(self, bus: Bus, settings: EngineSettings, members: Members, hooks: ServedHooks) -> None:
        name = members.own.name
        self.bus = bus
        self.settings = settings
        self.members = members
        self.namespaces = Namespaces(settings.namespaces)
        self.counters = Counters()
        self.hits = LimitHits(self.counters)
        self.faults = Faults(self.counters)
        self.registry = Registry(settings.heartbeat, self.counters, self.faults)
        tell = partial(bus.tell, AUDIT_SUBJECT) if settings.audit_events else None
        self.audit = Audit(settings.audit_log, name, tell)
        self.events = Events(bus, hooks.events, name, self.counters)
