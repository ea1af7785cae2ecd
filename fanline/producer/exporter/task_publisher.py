"""Publishes the events of one task: in order, until JetStream acknowledges them, over as many connections as needed."""

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

import trio

from fanline.backoff import Backoff
from fanline.nats.jetstream import check_answer
from fanline.producer.buffer import BufferedEvent
from fanline.producer.exporter.attempt import find_attempt
from fanline.producer.exporter.connection import ProducerConnection
from fanline.producer.exporter.pending_publish import PendingPublish, pending_publishes
from fanline.producer.producer import Producer
from fanline.protocol.envelope import MessageType, decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import NatsError, NatsMessage
from fanline.protocol.nats.names import MESSAGE_ID
from fanline.protocol.nats.subjects import Direction, to_subject

WINDOW = 100
"""Messages that may be unacknowledged at a time."""
ACK_SECONDS = 10.0
"""After this long without an acknowledgement, everything unacknowledged is published again."""
_HEARTBEATS = 3  # heartbeats sent within the interval that the task declares
_NEVER = float("inf")

Publish = Callable[[str, bytes], None]
"""Publishes a payload to a subject; may be called from any thread."""


class TaskPublisher:
    """The exporter's side of one producer."""

    def __init__(
        self, producer: Producer, previous: "TaskPublisher | None", reply: Publish, warn: Callable[[str], None]
    ) -> None:
        self.producer = producer
        self.finished = trio.Event()
        """Everything is stored, or has been given up."""
        self.troubled = False
        """NATS is reachable but does not store."""
        self._previous = previous
        self._reply = reply
        self._warn = warn
        self._scope = trio.CancelScope()
        self._woken = trio.Event()
        self._unacknowledged: dict[str, PendingPublish] = {}  # by message ID, in the order of the calls
        self._refused = False
        self._last_ack = 0.0  # monotonic
        self._backoff = Backoff(base=0.1, cap=5.0)
        self._ids = _message_ids()

    def wake(self) -> None:
        self._woken.set()

    def give_up(self) -> tuple[int, int]:
        """Stop, and discard what is not stored; returns how many events, and how many output lines, that loses."""
        events, lines = self.producer.discard()
        events += len(self._unacknowledged)
        self._unacknowledged.clear()
        self.finished.set()
        self._scope.cancel()
        return events, lines

    async def run(self, connection: ProducerConnection) -> None:
        """Publish over this connection until the task has ended and everything is stored. Cancelled if it breaks.

        A run waits for the end of an earlier run of the same task in this process: before that it could not know its
        own attempt.
        """
        if self._previous is not None:
            await self._previous.finished.wait()
            self._previous = None
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_heartbeats, connection)
                sid = connection.subscribe(to_subject(self.producer.channel, Direction.CTL), self._handle_call)
                await self._find_attempt(connection)
                await self._publish_events(connection)
                connection.unsubscribe(sid)
                nursery.cancel_scope.cancel()
            self.finished.set()

    async def _send_heartbeats(self, connection: ProducerConnection) -> None:
        subject = to_subject(self.producer.channel, Direction.BEAT)
        while True:
            connection.publish(subject, b"")
            await trio.sleep(self.producer.settings.heartbeat / _HEARTBEATS)

    async def _find_attempt(self, connection: ProducerConnection) -> None:
        while self.producer.attempt is None:
            try:
                self.producer.attempt = await find_attempt(connection, self.producer.channel)
            except NatsError as error:
                self._report_trouble(str(error))
                await trio.sleep(self._backoff.next_delay())
        self._backoff.reset()

    async def _publish_events(self, connection: ProducerConnection) -> None:
        self._publish_again(connection)
        while self.producer.ended is None or self._unacknowledged or self.producer.due < _NEVER:
            await self._retry_if_needed(connection)
            events = self.producer.take(time.monotonic(), WINDOW - len(self._unacknowledged))
            for event in events:
                self._publish(event, connection)
            if not events:
                await self._wait()

    async def _retry_if_needed(self, connection: ProducerConnection) -> None:
        if self._refused:
            await trio.sleep(self._backoff.next_delay())
            self._publish_again(connection)
        elif self._unacknowledged and time.monotonic() - self._last_ack > ACK_SECONDS:
            self._report_trouble("JetStream does not answer")
            self._publish_again(connection)

    async def _wait(self) -> None:
        """Wait until an event is due, or a message is acknowledged, refused or overdue."""
        now, until = time.monotonic(), _NEVER
        if len(self._unacknowledged) < WINDOW:
            until = self.producer.due
        if self._unacknowledged:
            until = min(until, self._last_ack + ACK_SECONDS + 0.1)
        with trio.move_on_after(max(0.0, until - now)):
            await self._woken.wait()
        self._woken = trio.Event()

    def _publish(self, event: BufferedEvent, connection: ProducerConnection) -> None:
        assert self.producer.attempt is not None
        if not self._unacknowledged:
            self._last_ack = time.monotonic()
        for pending in pending_publishes(
            event,
            channel=self.producer.channel,
            attempt=self.producer.attempt,
            ids=self._ids,
            time=_unix_ms(event.time),
            limit=connection.max_payload,
        ):
            self._unacknowledged[pending.headers[MESSAGE_ID]] = pending
            self._publish_one(pending, connection)

    def _publish_again(self, connection: ProducerConnection) -> None:
        """Publish everything unacknowledged. JetStream ignores what it has stored in the last two minutes."""
        self._refused, self._last_ack = False, time.monotonic()
        for pending in self._unacknowledged.values():
            self._publish_one(pending, connection)

    def _publish_one(self, pending: PendingPublish, connection: ProducerConnection) -> None:
        handler = partial(self._take_ack, pending.headers[MESSAGE_ID])
        connection.ask(to_subject(self.producer.channel), pending.payload, handler, pending.headers)

    def _take_ack(self, message_id: str, answer: NatsMessage) -> None:
        self.wake()
        self._last_ack = time.monotonic()
        try:
            check_answer(answer.payload)
        except NatsError as error:
            self._refused = True
            self._report_trouble(str(error))
        else:
            self.troubled = False
            self._backoff.reset()
            self._unacknowledged.pop(message_id, None)

    def _report_trouble(self, why: str) -> None:
        self.troubled = True
        if self.producer.ended is not None:
            self.producer.settle()
        self._warn(f"NATS is not storing the events of task {self.producer.id}: {why}")

    def _handle_call(self, message: NatsMessage) -> None:
        """A viewer's call, or the engine asking whether a producer is attached, which needs no answer."""
        try:
            envelope = decode_json(message.payload)
        except MessageError:
            return
        if envelope.type == MessageType.CALL and envelope.event:
            data = envelope.value
            by = data.get("by") if isinstance(data, dict) else None
            reply = partial(self._reply, message.reply) if message.reply else _discard
            self.producer.handle_call(envelope.event, data, by if isinstance(by, str) else envelope.sender, reply)


def _unix_ms(monotonic: float) -> int:
    return round((time.time() - time.monotonic() + monotonic) * 1000)


def _message_ids() -> Iterator[str]:
    """IDs that are unique among all runs of all tasks."""
    run, number = secrets.token_hex(6), 0
    while True:
        number += 1
        yield f"{run}-{number}"


def _discard(payload: bytes) -> None:
    """The reply to a caller that wants none."""
