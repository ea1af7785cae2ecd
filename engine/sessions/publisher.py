"""What a client publishes: stored in its channel's stream, or handed to the bus at once."""

import secrets
from contextlib import suppress

from msgspec import Raw

from fanline.engine.access.identity import Identity
from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.protocol.dialects.plain.commands import SAID_OF_CLIENTS, PlainCommand
from fanline.protocol.envelope import (
    Envelope,
    MessageType,
    check_deduplication_id,
    encode_cbor,
    encode_json,
    from_producer,
)
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.extra import check_extra, check_extra_of_client
from fanline.protocol.messages.answers import PublishResult
from fanline.protocol.nats.names import client_store_id
from fanline.protocol.tasks.publications import check_publication
from fanline.protocol.tasks.states import ENGINE_EVENTS


def new_message_id() -> str:
    """Not the request's id, which other clients may use as well."""
    return secrets.token_urlsafe(12)


class ClientPublisher:
    """Publishes for the sessions of one worker."""

    def __init__(self, bus: Bus, namespaces: Namespaces) -> None:
        self._bus = bus
        self._namespaces = namespaces

    async def publish(
        self, command: Envelope, channel: str, identity: Identity, message_id: str | None = None
    ) -> Envelope:
        """The answer to a `pub`. `message_id`: under which it is published, a new one by default. MessageError,
        BusError, TooLargeError.
        """
        user = identity.user
        namespace = self._namespaces.of(channel)
        if command.event in ENGINE_EVENTS and namespace.tasks:
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"only the engine says {command.event}; use `call`")
        if namespace.tasks and command.event and not isinstance(command, PlainCommand):
            check_publication(command)  # plain clients are older, and what they say is passed on as it is
        if command.event in SAID_OF_CLIENTS and not isinstance(command, PlainCommand):
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"only the server says {command.event}")
        if command.deduplication_id is not None:
            check_deduplication_id(command.deduplication_id)
        if command.extra is not None:
            check_extra_of_client(command.extra)
            check_extra(command.extra)
        if isinstance(command, PlainCommand) and identity.username is not None:
            command.extra = {**(command.extra or {}), "username": identity.username}
        message_id = message_id or new_message_id()
        payload = _payload(command, message_id, user)
        if isinstance(command, PlainCommand) and command.live:
            if namespace.tasks:
                raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is a task, and no room")
            await self._bus.publish_live(channel, payload)
            return _answer(channel, PublishResult(message_id))
        if namespace.durable:
            return await self._store(channel, payload, message_id, _store_id(command, channel, user))
        await self._bus.publish(channel, payload)
        return _answer(channel, PublishResult(message_id))

    async def _store(self, channel: str, payload: bytes, message_id: str, store_id: str | None) -> Envelope:
        ack = await self._bus.store(channel, payload, store_id)
        if ack.duplicate:
            return _answer(channel, PublishResult(await self._id_at(channel, ack.offset), duplicate=True), ack.offset)
        return _answer(channel, PublishResult(message_id), ack.offset)

    async def _id_at(self, channel: str, offset: int) -> str | None:
        """The id of a message that was stored before; None if it cannot be read now."""
        with suppress(BusError, MessageError):
            stored = await self._bus.read_one(channel, offset)
            return None if stored is None else from_producer(stored.payload).id
        return None


def _store_id(command: Envelope, channel: str, user: str | None) -> str | None:
    once = command.deduplication_id
    return None if once is None else client_store_id(user, channel, once)


def _answer(channel: str, result: PublishResult, offset: int | None = None) -> Envelope:
    return Envelope(MessageType.OK, channel=channel, offset=offset, data=result.fields())


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
        extra=command.extra,
        excluded=command.excluded,
    )
    # What came as CBOR may hold byte strings, which only CBOR carries as they are.
    as_json = isinstance(command.data, Raw) or (command.data is None and command.extra is None)
    return encode_json(message) if as_json else encode_cbor(message)
