"""A cluster in memory, and all that is told in it."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import from_producer
from fanline.protocol.management.monitor import SYSTEM
from fanline.protocol.nats.names import NOTIFY_SUBJECT
from fanline.protocol.notifications.notification import decode_notification
from fanline.workers.configuration.monitor import AlarmSettings
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.announcer import SystemAnnouncer


class Told:
    """Hears all notifications that are asked for; what stands on SYSTEM is read from its stream."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._bus = MemoryBus(broker)
        self.notifications: list[dict[str, Any]] = []

    async def start(self) -> "Told":
        await self._bus.answer(NOTIFY_SUBJECT, lambda payload, _: self._take(payload))
        return self

    def _take(self, payload: bytes) -> None:
        self.notifications.append(msgspec.to_builtins(decode_notification(payload)))

    def system(self) -> list[tuple[str | None, dict[str, Any]]]:
        """Event and data of everything on SYSTEM."""
        stored = self._broker.streams[namespace_of(SYSTEM)].read(SYSTEM, 0).messages
        read = [from_producer(each.payload) for each in stored]
        return [(each.event, each.value) for each in read]


def process(
    broker: MemoryBroker, settings: Mapping[str, AlarmSettings], check: Callable[[], None] = lambda: None
) -> Alarms:
    """The alarms of one control process. `check`: raises BusError if it may not speak for the cluster."""
    bus = MemoryBus(broker)
    return Alarms(bus, settings, SystemAnnouncer(bus, Namespaces(), check))
