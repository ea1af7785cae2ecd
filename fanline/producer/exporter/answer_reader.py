"""Looks in the stream for the answer to a task's question, which may have been given while there was no connection.

The engine delivers it, too; but only from here is it had without a worker. Without I/O.
"""

from typing import Any

import msgspec

from fanline.nats.jetstream import JetStreamAnswer
from fanline.nats.requests import NatsRequests
from fanline.producer.producer import Producer
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import decode_json, from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import stream_name
from fanline.protocol.nats.parser import NatsMessage, header_of
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent

_BATCH, _BATCH_BYTES = 500, 1 << 20
_END_OF_BATCH = 204


class AnswerReader:
    """The newest question of one task."""

    def __init__(self, requests: NatsRequests, producer: Producer) -> None:
        self._requests = requests
        self._producer = producer
        self._ask = ""
        self._offset = 0
        """Of the question in the stream; 0 until it is known."""
        self._read_to = 0

    def asked(self, question: bytes, answer: JetStreamAnswer) -> None:
        """JetStream has acknowledged a question."""
        self._ask, self._offset = decode_json(question).value["ask"], answer.seq
        if answer.duplicate:  # it may have been answered since it was stored
            self._read(self._offset)

    def connected(self) -> None:
        """There is a new connection."""
        if self._offset:
            self._read(self._offset)

    def _read(self, offset: int) -> None:
        """Read what the stream has after an offset, if the job still waits."""
        if not self._producer.is_asking(self._ask):
            return
        self._read_to, channel = offset, self._producer.channel
        request = {
            "seq": offset + 1,
            "batch": _BATCH,
            "max_bytes": _BATCH_BYTES,
            "next_by_subj": to_subject(channel),
        }
        subject = f"$JS.API.DIRECT.GET.{stream_name(namespace_of(channel))}"
        self._requests.ask(subject, msgspec.json.encode(request), self._take, many=True)

    def _take(self, message: NatsMessage) -> None:
        if message.status is None:
            self._read_to = int(header_of(message.headers, "Nats-Sequence") or self._read_to)
            self._take_event(message.payload)
        elif message.status == _END_OF_BATCH and int(header_of(message.headers, "Nats-Num-Pending") or 0):
            self._read(self._read_to)

    def _take_event(self, payload: bytes) -> None:
        """The first answer counts, as in every fold; after the question has expired none does."""
        try:
            envelope = from_producer(payload)
        except MessageError:
            return
        data: Any = envelope.value
        if not isinstance(data, dict) or data.get("ask") != self._ask or not self._producer.is_asking(self._ask):
            return
        if envelope.event == TaskEvent.ANSWERED:
            verb = str(data.get("verb") or "input")
            self._producer.handle_call(verb, data, envelope.sender, _discard)
        elif envelope.event == TaskEvent.ASK_EXPIRED:
            self._ask = ""


def _discard(reply: bytes) -> None:
    """The engine delivers the answer, too, and gets the reply."""
