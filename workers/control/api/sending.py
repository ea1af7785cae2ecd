"""The calls that send messages."""

from typing import Annotated, Any

import trio
from fastapi import APIRouter, Depends
from pydantic import Field

from fanline.engine.bus.errors import BusError, StorageFullError, TooLargeError
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import MessageError
from fanline.protocol.management.questions import AudienceQuestion, SendQuestion, StatisticsQuestion
from fanline.workers.control.api.models import ApiModel, Coverage
from fanline.workers.control.api.parameters import NAME
from fanline.workers.control.http.callers import acting
from fanline.workers.control.http.problems import ApiError, refused, unavailable
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import ControlParts, Parts
from fanline.workers.control.publishing import TakenMessage, free_message

router = APIRouter(route_class=StrictRoute, dependencies=[Depends(acting(ApiRight.PUBLISH))])
MAX_BATCH = 1000
BROADCAST = "system:all"
_URGENT = 8
"""The priority with which a message of `system` reaches every connection, subscribed or not."""
_AT_ONCE = 16  # of a batch, on different channels

Event = Annotated[str, Field(min_length=1, max_length=256, pattern=NAME)]
Priority = Annotated[int, Field(ge=0, le=9)]
Free = Annotated[dict[str, Any], Field(max_length=100)]


class NewMessage(ApiModel):
    """A message to a channel: what a producer would publish to NATS (docs/reference/protocol.md)."""

    channel: Annotated[str, Field(max_length=300)]
    event: Event | None = None
    data: Any = None
    key: Annotated[str, Field(max_length=256, pattern=NAME)] | None = None
    """Conflation key: in a slow client's backlog, a newer message with the same key replaces this one."""
    priority: Priority | None = None
    ttl: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """Seconds after which it is no longer delivered."""
    extra: dict[str, Any] | None = None
    """Extra attributes: `x` of the envelope."""
    sender: Annotated[str, Field(max_length=256, pattern=NAME)] | None = None
    """The user on whose behalf it is sent."""
    exclude_connection: Annotated[str, Field(max_length=64, pattern=NAME)] | None = None
    """The public id of a connection that does not get it."""
    deduplication_id: Annotated[str, Field(min_length=16, max_length=256, pattern=NAME)] | None = None
    """A durable channel stores messages with the same one only once, within two minutes."""


class PublishBatch(ApiModel):
    """Messages; those of one channel are published in order."""

    messages: Annotated[list[NewMessage], Field(min_length=1, max_length=MAX_BATCH)]


class PublishOutcome(ApiModel):
    """The outcome for one message."""

    channel: str
    message_id: str | None = None
    offset: int | None = None
    """On a durable channel."""
    duplicate: bool = False
    """It was already stored, under the same de-duplication id."""
    error: str | None = None
    """A code, if it was not published; then `message` is a sentence."""
    message: str | None = None


class PublishOutcomes(ApiModel):
    """One outcome for each message, in their order."""

    results: list[PublishOutcome]
    published: int
    failed: int


class ToUser(ApiModel):
    """A message to a user."""

    user_id: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)]
    message: Free
    """A free map: its `type` becomes the event, its `data` the data, and the rest extra attributes."""
    exclude_connection: Annotated[str, Field(max_length=64, pattern=NAME)] | None = None


class ToChannel(ApiModel):
    """A message to a channel."""

    channel: Annotated[str, Field(max_length=300)]
    message: Free
    """As in `send-to-user`."""
    exclude_connection: Annotated[str, Field(max_length=64, pattern=NAME)] | None = None


class ToConnection(ApiModel):
    """A message to one connection."""

    connection_id: Annotated[str, Field(max_length=64, pattern=NAME)]
    message: Free
    """As in `send-to-user`; extra attributes are not sent."""


class ToAll(ApiModel):
    """A message to every connection."""

    message: Free
    """As in `send-to-user`."""
    priority: Annotated[int, Field(ge=_URGENT, le=9)] = _URGENT


class SendAnswer(ApiModel):
    """A message that was accepted."""

    message_id: str | None
    offset: int | None = None
    connections: int
    """How many connections can receive it now: subscribers of the channel, or, for a broadcast, all."""
    workers: Coverage


class SentToOne(ApiModel):
    """A message that was sent to one connection; it is stored nowhere."""

    connection_id: str


@router.post("/publish")
async def publish(parts: Parts, batch: PublishBatch) -> PublishOutcomes:
    """Publish messages. Each succeeds or fails by itself; with de-duplication ids, a batch can be sent again."""
    results = list[PublishOutcome | None]([None] * len(batch.messages))
    by_channel: dict[str, list[int]] = {}
    for number, message in enumerate(batch.messages):
        by_channel.setdefault(message.channel, []).append(number)
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def publish_some(numbers: list[int]) -> None:
        async with limiter:
            for number in numbers:
                results[number] = await _outcome(parts, batch.messages[number])

    async with trio.open_nursery() as nursery:
        for numbers in by_channel.values():
            nursery.start_soon(publish_some, numbers)
    done = [each for each in results if each is not None]
    failed = sum(each.error is not None for each in done)
    return PublishOutcomes(results=done, published=len(done) - failed, failed=failed)


@router.post("/send-to-channel")
async def send_to_channel(parts: Parts, wanted: ToChannel) -> SendAnswer:
    """Send a message to a channel."""
    return await _send(parts, wanted.channel, wanted.message, wanted.exclude_connection)


@router.post("/send-to-user")
async def send_to_user(parts: Parts, wanted: ToUser) -> SendAnswer:
    """Send a message to a user: to the inbox `user:USER`, where it waits for up to seven days."""
    return await _send(parts, inbox_name(wanted.user_id), wanted.message, wanted.exclude_connection)


@router.post("/send-to-connection")
async def send_to_connection(parts: Parts, wanted: ToConnection) -> SentToOne:
    """Send a message to one connection, whatever it is subscribed to."""
    message = free_message(wanted.message)
    question = SendQuestion(connection=wanted.connection_id, event=message.event or "", data=message.data)
    if not await parts.cluster.send(question):
        raise ApiError(404, "not_found", "no connection with this id is open", where="body.connection_id")
    return SentToOne(connection_id=wanted.connection_id)


@router.post("/broadcast")
async def broadcast(parts: Parts, wanted: ToAll) -> SendAnswer:
    """Send a message to every connection of the cluster, whatever it is subscribed to."""
    message = free_message(wanted.message)
    message.channel, message.priority = BROADCAST, wanted.priority
    published = await _published(parts, message)
    told = await parts.cluster.gather(StatisticsQuestion(fresh=False), WorkerStatistics)
    return SendAnswer(
        message_id=published.message_id,
        offset=published.offset,
        connections=sum(each.users.connections for each in told.bodies),
        workers=Coverage(answered=told.answered, missing=told.missing),
    )


async def _send(parts: ControlParts, channel: str, free: dict[str, Any], excluded: str | None) -> SendAnswer:
    message = free_message(free)
    message.channel, message.excluded = channel, excluded
    published = await _published(parts, message)
    told = await parts.cluster.gather(AudienceQuestion(channel=channel, without=excluded), int)
    return SendAnswer(
        message_id=published.message_id,
        offset=published.offset,
        connections=sum(told.bodies),
        workers=Coverage(answered=told.answered, missing=told.missing),
    )


async def _published(parts: ControlParts, message: Envelope) -> TakenMessage:
    """ApiError, BusError."""
    try:
        return await parts.publisher.publish(message)
    except TooLargeError as error:
        raise ApiError(413, "too_large", str(error)) from None
    except StorageFullError as error:
        raise unavailable(str(error)) from None
    except MessageError as error:
        raise refused(error.code, str(error)) from None


async def _outcome(parts: ControlParts, wanted: NewMessage) -> PublishOutcome:
    message = Envelope(
        MessageType.PUB,
        channel=wanted.channel,
        event=wanted.event,
        data=wanted.data,
        key=wanted.key,
        priority=wanted.priority,
        ttl=wanted.ttl,
        extra=wanted.extra,
        sender=wanted.sender,
        excluded=wanted.exclude_connection,
        deduplication_id=wanted.deduplication_id,
    )
    try:
        done = await _published(parts, message)
    except ApiError as error:
        return PublishOutcome(channel=wanted.channel, error=error.problem.error, message=error.problem.message)
    except BusError as error:
        return PublishOutcome(channel=wanted.channel, error="unavailable", message=str(error))
    return PublishOutcome(
        channel=done.channel, message_id=done.message_id, offset=done.offset, duplicate=done.duplicate
    )
