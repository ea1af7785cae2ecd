"""The channel `websocket` of notifications: a message in the user's inbox, or to every connection."""

from typing import Any

from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.engine.notifications.received import ReceivedNotifications, channel_of
from fanline.protocol.dialects.plain.notices import NOTIFICATION
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.nats.names import engine_store_id
from fanline.protocol.notifications.notification import EVERYBODY, Notification, NotificationLevel
from fanline.protocol.notifications.templates import RenderedNotification
from fanline.protocol.times import iso_time

_TO_EVERY_CONNECTION = 8
_URGENT = 9


class NotificationInbox:
    """Of one cluster. BusError."""

    def __init__(self, bus: Bus, received: ReceivedNotifications, namespaces: Namespaces) -> None:
        self._bus = bus
        self._received = received
        self._namespaces = namespaces

    async def put(self, asked: Notification, shown: RenderedNotification, notification: str, *, again: bool) -> None:
        """Put a notification into its user's inbox, once. `again`: it may be there already. MessageError."""
        channel = channel_of(asked.user)
        durable = self._namespaces.of(channel).durable
        if durable and again and await self._received.has(channel, notification):
            return
        now = unix_ms()
        envelope = Envelope(
            MessageType.PUB,
            id=notification,
            event=NOTIFICATION,
            data=_shown(asked, shown, notification, now),
            priority=_priority(asked, shown),
            time=now,
        )
        if durable:
            store_id = engine_store_id(channel, f"notification/{notification}")
            await self._bus.store(channel, encode_json(envelope), store_id)
        else:
            await self._bus.publish(channel, encode_json(envelope))


def _shown(asked: Notification, shown: RenderedNotification, notification: str, now: int) -> dict[str, Any]:
    """The data of the message: in both shapes of the plain dialect."""
    fields: dict[str, Any] = {
        "id": notification,
        "title": shown.title,
        "message": shown.message,
        "type": shown.level.value,
        "auto_close": asked.auto_close,
        "timestamp": iso_time(now),
    }
    if shown.action_url is not None:
        fields["action_url"] = shown.action_url
    if asked.template is not None:
        fields |= {"template": asked.template, "parameters": asked.parameters}
    return fields | ({"data": asked.data} if asked.data else {})


def _priority(asked: Notification, shown: RenderedNotification) -> int | None:
    if shown.level is NotificationLevel.URGENT:
        return _URGENT
    return _TO_EVERY_CONNECTION if asked.user == EVERYBODY else None
