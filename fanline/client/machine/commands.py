"""What a program may ask: for each call of `Client` the command that it sends, and what it makes of the answer."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

from fanline.base.plain import plain
from fanline.client.control import read_control
from fanline.client.message import (
    Message,
    PastMessages,
    Position,
    Published,
    check_number,
    check_text,
    checked_position,
    from_envelope,
)
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import HistoryAnswer, PresenceData, PublishResult
from fanline.protocol.messages.commands import MAX_PAGE, AskHistory

Result = TypeVar("Result")


class Command(NamedTuple, Generic[Result]):
    envelope: Envelope
    read: Callable[[Envelope], Result]
    to_others: bool = False
    """A `pub` that leaves out the connection on which it is sent."""


def publish(
    channel: str,
    data: Any,
    *,
    event: str | None,
    x: Mapping[str, Any] | None,
    to_others: bool,
    deduplication_id: str | None,
) -> Command[Published]:
    if x is not None and not (isinstance(x, Mapping) and all(isinstance(key, str) for key in x)):
        raise TypeError("x is a map with keys that are str")
    envelope = _envelope(
        MessageType.PUB,
        channel,
        event=event,
        data=plain(data),
        extra=None if x is None else plain(x),
        deduplication_id=uuid4().hex if deduplication_id is None else deduplication_id,
    )
    return Command(envelope, _published, to_others)


def _published(reply: Envelope) -> Published:
    result = read_control(PublishResult, reply)
    return Published(result.id, reply.offset, result.duplicate)


def history(channel: str, *, limit: int, before: Position | None, after: Position | None) -> Command[PastMessages]:
    check_number("limit", limit, 1, MAX_PAGE)
    if before is not None and after is not None:
        raise ValueError("give before or after, not both")
    before, after = before and checked_position(before), after and checked_position(after)
    place = before or after
    asked = AskHistory(limit=limit, before=before and before.offset, after=after and after.offset)
    return Command(
        _envelope(MessageType.HISTORY, channel, epoch=place and place.epoch, data=asked.fields()), _past_messages
    )


def _past_messages(reply: Envelope) -> PastMessages:
    page = read_control(HistoryAnswer, reply)
    messages = [from_envelope(each, reply.epoch) for each in page.messages if each.type == MessageType.PUB]
    more = page.more and reply.offset is not None
    return PastMessages(messages, Position(reply.offset or 0, reply.epoch) if more else None)


def ack(message: Message) -> Command[None]:
    return Command(
        _envelope(MessageType.ACK, message.channel, offset=message.offset, epoch=message.epoch), lambda reply: None
    )


def presence(channel: str | None) -> Command[PresenceData]:
    return Command(_envelope(MessageType.PRESENCE, channel), lambda reply: read_control(PresenceData, reply))


def call(channel: str, verb: str, data: Any) -> Command[Any]:
    envelope = _envelope(MessageType.CALL, channel, event=verb, data=plain(data))
    return Command(envelope, lambda reply: reply.value)


def ping() -> Command[None]:
    return Command(Envelope(MessageType.PING, id="~ping"), lambda reply: None)  # an id that no program would give


def _envelope(kind: MessageType, channel: str | None, **fields: Any) -> Envelope:
    texts = {
        "a channel": channel,
        "an event": fields.get("event"),
        "a deduplication_id": fields.get("deduplication_id"),
    }
    for name, text in texts.items():
        if text is not None:
            check_text(name, text)
    return Envelope(kind, channel=channel, id=uuid4().hex, **fields)
