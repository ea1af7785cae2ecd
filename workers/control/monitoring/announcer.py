"""How alarms and changes of a server's state are told: on `system:all`, and to admins."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.management.monitor import SYSTEM, AlarmKind
from fanline.protocol.nats.names import NOTIFY_SUBJECT, engine_store_id, name_key
from fanline.protocol.notifications.notification import ADMINS, Notification, NotificationLevel, encode_notification
from fanline.protocol.times import iso_time

_log = logging.getLogger("fanline.monitor")


class SystemAnnouncer:
    """Of one control process. `check`: raises BusError if another process may lead; all methods pass that on."""

    def __init__(self, bus: Bus, namespaces: Namespaces, check: Callable[[], None]) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self.check = check

    async def say(self, kind: AlarmKind, data: Mapping[str, Any], name: str) -> None:
        """Publish on SYSTEM; what is said under the same `name` is stored once within two minutes. BusError."""
        message = Envelope(MessageType.PUB, event=kind.event, id=name_key(name), data=dict(data), time=unix_ms())
        payload = encode_json(message)
        self.check()
        if self._namespaces.of(SYSTEM).durable:
            repeated = (await self._bus.store(SYSTEM, payload, engine_store_id(SYSTEM, name))).duplicate
        else:
            await self._bus.publish(SYSTEM, payload)
            repeated = False
        if not repeated:
            _log.warning("%s", data["message"])

    def notify_admins(self, title: str, data: Mapping[str, Any], level: NotificationLevel, name: str) -> None:
        """Ask for a notification, once for each `name`."""
        self.notify(
            Notification(
                user=ADMINS,
                title=title,
                message=str(data["message"]),
                level=level,
                data=dict(data),
                id=name_key(name),
            )
        )

    def notify(self, notification: Notification) -> None:
        """Ask for a notification; lost if NATS is away."""
        self.check()
        self._bus.tell(NOTIFY_SUBJECT, encode_notification(notification))


def text_of(seconds: float | None) -> str | None:
    """Unix seconds as text."""
    return None if seconds is None else iso_time(round(seconds * 1000))
