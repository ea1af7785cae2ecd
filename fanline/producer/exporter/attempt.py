"""The number of a task's run: one more than that of the last run that the server knows."""

from typing import Any

import msgspec

from fanline.producer.exporter.connection import ProducerConnection
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import NatsError
from fanline.protocol.nats.names import Bucket, bucket_stream, bucket_subject, channel_key, stream_name
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState

_NO_MESSAGE = 404


async def find_attempt(connection: ProducerConnection, channel: str) -> int:
    """The number of the run that begins now. Raises NatsError if JetStream cannot tell.

    Both the newest message and the engine's task record are read: the message may not name its attempt, and the record
    may be some moments old.
    """
    subject = to_subject(channel)
    message = await _newest(connection, stream_name(namespace_of(channel)), subject)
    key = bucket_subject(Bucket.TASKS, channel_key(channel))
    record = await _newest(connection, bucket_stream(Bucket.TASKS), key, required=False)
    return max(_after_message(message), _after_record(record))


async def _newest(connection: ProducerConnection, stream: str, subject: str, *, required: bool = True) -> bytes | None:
    """The newest message of a subject in a stream. Raises NatsError if a `required` stream does not answer."""
    request = msgspec.json.encode({"last_by_subj": subject})
    answer = await connection.request(f"$JS.API.DIRECT.GET.{stream}", request)
    if answer.status is None:
        return answer.payload
    if required and answer.status != _NO_MESSAGE:
        raise NatsError(f"it has no stream {stream}, or JetStream is unavailable ({answer.status})")
    return None


def _after_message(payload: bytes | None) -> int:
    if payload is None:
        return 1
    try:
        envelope = from_producer(payload)
        attempt = _attempt_in(envelope.value)
    except MessageError:
        return 2
    return attempt if envelope.event == TaskEvent.CREATED else attempt + 1


def _after_record(payload: bytes | None) -> int:
    try:
        snapshot = msgspec.json.decode(payload or b"{}").get("snapshot", {})
        known = isinstance(snapshot, dict) and "attempt" in snapshot
    except (msgspec.MsgspecError, AttributeError):
        return 1
    if not known:
        return 1
    attempt = _attempt_in(snapshot)
    return attempt if snapshot.get("state") == TaskState.QUEUED else attempt + 1


def _attempt_in(data: Any) -> int:
    """The attempt that the data names; 1 if it names none."""
    attempt = data.get("attempt") if isinstance(data, dict) else None
    return attempt if isinstance(attempt, int) and attempt > 0 else 1
