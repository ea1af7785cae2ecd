"""Which run of a task this is: one after the last that the server knows of."""

from typing import Any

import msgspec

from fanline.producer.exporter.connection import Link
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import NatsError
from fanline.protocol.nats.names import Bucket, bucket_stream, bucket_subject, channel_key, stream_name
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState

_NO_MESSAGE = 404


async def find_attempt(link: Link, channel: str) -> int:
    """The number of the run that begins now. NatsError if JetStream cannot tell.

    The engine's checkpoint may be some moments old, and the newest message may say no attempt: both are asked.
    """
    subject = to_subject(channel)
    newest = await _last(link, stream_name(namespace_of(channel)), subject)
    key = bucket_subject(Bucket.TASKS, channel_key(channel))
    checkpoint = await _last(link, bucket_stream(Bucket.TASKS), key, needed=False)
    return max(_after_message(newest), _after_checkpoint(checkpoint))


async def _last(link: Link, stream: str, subject: str, *, needed: bool = True) -> bytes | None:
    """The newest message that a stream holds of a subject."""
    request = msgspec.json.encode({"last_by_subj": subject})
    answer = await link.request(f"$JS.API.DIRECT.GET.{stream}", request)
    if answer.status is None:
        return answer.payload
    if needed and answer.status != _NO_MESSAGE:
        raise NatsError(f"it has no stream {stream}, or JetStream is away ({answer.status})")
    return None


def _after_message(payload: bytes | None) -> int:
    if payload is None:
        return 1
    try:
        envelope = from_producer(payload)
        said = _attempt_in(envelope.value)
    except MessageError:
        return 2
    return said if envelope.event == TaskEvent.CREATED else said + 1


def _after_checkpoint(payload: bytes | None) -> int:
    try:
        snapshot = msgspec.json.decode(payload or b"{}").get("snapshot", {})
        known = isinstance(snapshot, dict) and "attempt" in snapshot
    except (msgspec.MsgspecError, AttributeError):
        return 1
    if not known:
        return 1
    said = _attempt_in(snapshot)
    return said if snapshot.get("state") == TaskState.QUEUED else said + 1


def _attempt_in(data: Any) -> int:
    """1 where none is said."""
    said = data.get("attempt") if isinstance(data, dict) else None
    return said if isinstance(said, int) and said > 0 else 1
