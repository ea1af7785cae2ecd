"""What a client publishes: stored in its channel's stream, or handed to the bus at once."""

import secrets

from msgspec import Raw

from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.protocol.envelope import Envelope, MessageType, encode_cbor, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import PublishResult
from fanline.protocol.nats.names import deduplication_id
from fanline.protocol.tasks.states import ENGINE_EVENTS


class ClientPublisher:
    """Publishes for the sessions of one worker."""

    def __init__(self, bus: Bus, namespaces: Namespaces) -> None:
        self._bus = bus
        self._namespaces = namespaces

    async def publish(self, command: Envelope, channel: str, user: str | None) -> Envelope:
        """The answer to a `pub`. MessageError, BusError, TooLargeError."""
        namespace = self._namespaces.of(channel)
        if command.event in ENGINE_EVENTS and namespace.tasks:
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"only the engine says {command.event}; use `call`")
        message_id = command.id or secrets.token_urlsafe(12)
        payload = _payload(command, message_id, user)
        answer = Envelope(MessageType.OK, channel=channel, data=PublishResult(id=message_id).fields())
        if namespace.durable:
            once = deduplication_id(channel, message_id, user or "")
            answer.offset = await self._bus.store(channel, payload, once)
        else:
            await self._bus.publish(channel, payload)
        return answer


def _payload(command: Envelope, message_id: str, user: str | None) -> bytes:
    """The message as it goes over the bus."""
    message = Envelope(
        MessageType.PUB,
        id=message_id,
        event=command.event,
        data=command.data,
        sender=user,
        time=unix_ms(),
        key=command.key,
        priority=command.priority,
        ttl=command.ttl,
    )
    # CBOR data may hold byte strings, which only CBOR carries as they are.
    as_json = command.data is None or isinstance(command.data, Raw)
    return encode_json(message) if as_json else encode_cbor(message)
