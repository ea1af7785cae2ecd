"""Messages that backends publish over HTTP, because they cannot speak NATS."""

import secrets
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec.structs import replace

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import check_channel, namespace_of
from fanline.protocol.envelope import Envelope, MessageType, check_texts, encode_json, from_producer
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.extra import check_extra
from fanline.protocol.nats.names import ENGINE_NAMESPACES, producer_store_id
from fanline.protocol.tasks.publications import check_publication
from fanline.protocol.values import check_value


class TakenMessage(NamedTuple):
    """A message that was accepted."""

    channel: str
    message_id: str | None
    """Of a duplicate, the id of the first one, if it is known."""
    offset: int | None = None
    """On a durable channel."""
    duplicate: bool = False


class BackendPublisher:
    """Of one server."""

    def __init__(self, bus: Bus, namespaces: Namespaces) -> None:
        self._bus = bus
        self._namespaces = namespaces

    async def publish(self, message: Envelope) -> TakenMessage:
        """Publish a message to its channel; one with a de-duplication id is stored once, however often it is published,
        as one that a producer publishes to NATS with it. MessageError, BusError.
        """
        channel = check_channel(message.channel or "")
        if namespace_of(channel) in ENGINE_NAMESPACES:
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"only the engine publishes to {channel}")
        check_texts(message)
        check_value(message.data)
        check_extra(message.extra or {})
        if self._namespaces.of(channel).tasks:
            check_publication(message)
        message_id, once = secrets.token_urlsafe(12), message.deduplication_id
        whole = replace(message, type=MessageType.PUB, channel=None, id=message_id, deduplication_id=None)
        try:
            payload = encode_json(replace(whole, time=unix_ms()))
        except UnicodeEncodeError:
            raise MessageError(ErrorCode.BAD_MESSAGE, "a text has half of a surrogate pair in it") from None
        if not self._namespaces.of(channel).durable:
            await self._bus.publish(channel, payload)
            return TakenMessage(channel, message_id)
        store_id = None if once is None else producer_store_id(channel, once)
        ack = await self._bus.store(channel, payload, store_id)
        if ack.duplicate:
            return TakenMessage(channel, await self._id_at(channel, ack.offset), ack.offset, duplicate=True)
        return TakenMessage(channel, message_id, ack.offset)

    async def _id_at(self, channel: str, offset: int) -> str | None:
        with suppress(BusError, MessageError):
            stored = await self._bus.read_one(channel, offset)
            return None if stored is None else from_producer(stored.payload).id
        return None


def free_message(message: dict[str, Any]) -> Envelope:
    """A message that a backend gives as a free map: its `type` is the event, its `data` the data, if it is a map, and
    the rest are extra attributes. Without a `type`, all of it is the data of a `message`.
    """
    event = message.get("type")
    if not isinstance(event, str) or not event:
        return Envelope(MessageType.PUB, event="message", data=message)
    rest = {key: value for key, value in message.items() if key not in ("type", "data")}
    return Envelope(MessageType.PUB, event=event, data=message.get("data", {}), extra=rest or None)
