"""The number of a task's run: one more than that of the last run that the server knows. Without I/O."""

from collections.abc import Callable
from typing import Any

import msgspec

from fanline.nats.dial import ANSWER_SECONDS
from fanline.nats.requests import NatsRequests
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket, bucket_stream, bucket_subject, channel_key, stream_name
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState

_NO_MESSAGE = 404
_GET = "$JS.API.DIRECT.GET."


class AttemptQuestion:
    """Asks JetStream for the newest message of a task, and for the engine's task record: the message may not name its
    attempt, and the record may be some moments old. `wake` is called with each answer.
    """

    def __init__(self, requests: NatsRequests, channel: str, now: float, wake: Callable[[], None]) -> None:
        self.deadline = now + ANSWER_SECONDS
        self._wake = wake
        self._message: NatsMessage | None = None
        self._record: NatsMessage | None = None
        stream, bucket = stream_name(namespace_of(channel)), bucket_stream(Bucket.TASKS)
        key = bucket_subject(Bucket.TASKS, channel_key(channel))
        self.subjects = (f"{_GET}{stream}", f"{_GET}{bucket}")
        """Where it was asked."""
        self._stream = stream
        requests.ask(self.subjects[0], _newest_of(to_subject(channel)), self._take_message)
        requests.ask(self.subjects[1], _newest_of(key), self._take_record)

    def attempt(self, now: float) -> int | None:
        """The number of the run that begins now; None until it is known. Raises NatsError if JetStream cannot tell."""
        if self._message is not None and self._message.status not in (None, _NO_MESSAGE):
            raise NatsError(f"it has no stream {self._stream}, or JetStream is unavailable ({self._message.status})")
        if self._message is None or self._record is None:
            if now >= self.deadline:
                raise NatsError(f"JetStream did not answer within {ANSWER_SECONDS:g} seconds")
            return None
        return max(_after_message(_payload(self._message)), _after_record(_payload(self._record)))

    def _take_message(self, answer: NatsMessage) -> None:
        self._message = answer
        self._wake()

    def _take_record(self, answer: NatsMessage) -> None:
        self._record = answer
        self._wake()


def _newest_of(subject: str) -> bytes:
    return msgspec.json.encode({"last_by_subj": subject})


def _payload(answer: NatsMessage) -> bytes | None:
    """What was found; None if it was nothing."""
    return answer.payload if answer.status is None else None


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
