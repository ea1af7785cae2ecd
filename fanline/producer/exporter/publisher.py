"""How one task's messages get stored: in order, acknowledged, over as many connections as it takes."""

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

import trio

from fanline.backoff import Backoff
from fanline.nats.answers import store_answer
from fanline.producer.buffer import Message
from fanline.producer.exporter.attempt import find_attempt
from fanline.producer.exporter.connection import Link
from fanline.producer.exporter.messages import Parcel, parcels
from fanline.producer.producer import Producer
from fanline.protocol.envelope import MessageType, decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import NatsError, NatsMessage
from fanline.protocol.nats.names import MESSAGE_ID
from fanline.protocol.nats.subjects import Direction, to_subject

WINDOW = 100
"""Messages that may be unacknowledged."""
PATIENCE = 10.0
"""Seconds without an acknowledgement after which everything unacknowledged is sent again."""
_BEATS = 3  # signs of life per heartbeat
_NEVER = float("inf")

Reply = Callable[[str, bytes], None]
"""Publishes (subject, payload), from any thread."""


class Delivery:
    """The courier's side of one producer."""

    def __init__(
        self, producer: Producer, previous: "Delivery | None", reply: Reply, warn: Callable[[str], None]
    ) -> None:
        self.producer = producer
        self.over = trio.Event()
        """All is stored, or given up."""
        self._previous = previous
        self._reply = reply
        self._warn = warn
        self._scope = trio.CancelScope()
        self._woken = trio.Event()
        self._unacked: dict[str, Parcel] = {}  # id -> message, in the order of the calls
        self.troubled = False
        """NATS is there, and does not store."""
        self._refused = False
        self._acked = 0.0  # monotonic time of the last acknowledgement
        self._backoff = Backoff(base=0.1, cap=5.0)
        self._ids = _ids()

    def wake(self) -> None:
        self._woken.set()

    def give_up(self) -> tuple[int, int]:
        """Stop, and throw away what is not stored: (events, output lines)."""
        events, lines = self.producer.give_up()
        count = events + len(self._unacked)
        self._unacked.clear()
        self.over.set()
        self._scope.cancel()
        return count, lines

    async def run(self, link: Link) -> None:
        """Deliver over this connection, until it breaks (then cancelled), or all is delivered and the task ended.

        A run of a task waits for the end of an earlier one in this process, or it could not know its own number.
        """
        if self._previous is not None:
            await self._previous.over.wait()
            self._previous = None
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, link)
                sid = link.listen(to_subject(self.producer.channel, Direction.CTL), self._hear)
                await self._learn_attempt(link)
                await self._deliver(link)
                link.ignore(sid)
                nursery.cancel_scope.cancel()
            self.over.set()

    async def _beat(self, link: Link) -> None:
        subject = to_subject(self.producer.channel, Direction.BEAT)
        while True:
            link.publish(subject, b"")
            await trio.sleep(self.producer.settings.heartbeat / _BEATS)

    async def _learn_attempt(self, link: Link) -> None:
        while self.producer.attempt is None:
            try:
                self.producer.attempt = await find_attempt(link, self.producer.channel)
            except NatsError as error:
                self._complain(str(error))
                await trio.sleep(self._backoff.next_delay())
        self._backoff.reset()

    async def _deliver(self, link: Link) -> None:
        self._send_again(link)
        while self.producer.ended is None or self._unacked or self.producer.due < _NEVER:
            if self._refused:
                await trio.sleep(self._backoff.next_delay())
                self._send_again(link)
            elif self._unacked and time.monotonic() - self._acked > PATIENCE:
                self._complain("JetStream does not answer")
                self._send_again(link)
            messages = self.producer.take(time.monotonic(), WINDOW - len(self._unacked))
            for message in messages:
                self._send(message, link)
            if not messages:
                await self._rest()

    async def _rest(self) -> None:
        """Until something is due, acknowledged, refused or overdue."""
        now, until = time.monotonic(), _NEVER
        if len(self._unacked) < WINDOW:
            until = self.producer.due
        if self._unacked:
            until = min(until, self._acked + PATIENCE + 0.1)
        with trio.move_on_after(max(0.0, until - now)):
            await self._woken.wait()
        self._woken = trio.Event()

    def _send(self, message: Message, link: Link) -> None:
        assert self.producer.attempt is not None
        if not self._unacked:
            self._acked = time.monotonic()
        said = round((time.time() - time.monotonic() + message.time) * 1000)
        for parcel in parcels(
            message,
            channel=self.producer.channel,
            attempt=self.producer.attempt,
            ids=self._ids,
            time=said,
            limit=link.max_payload,
        ):
            self._unacked[parcel.headers[MESSAGE_ID]] = parcel
            self._ship(parcel, link)

    def _send_again(self, link: Link) -> None:
        """JetStream leaves out what it has stored before, for two minutes."""
        self._refused, self._acked = False, time.monotonic()
        for parcel in self._unacked.values():
            self._ship(parcel, link)

    def _ship(self, parcel: Parcel, link: Link) -> None:
        taken = partial(self._acknowledged, parcel.headers[MESSAGE_ID])
        link.ask(to_subject(self.producer.channel), parcel.payload, taken, parcel.headers)

    def _acknowledged(self, message_id: str, answer: NatsMessage) -> None:
        self.wake()
        self._acked = time.monotonic()
        try:
            store_answer(answer.payload)
        except NatsError as error:
            self._refused = True
            self._complain(str(error))
        else:
            self.troubled = False
            self._backoff.reset()
            self._unacked.pop(message_id, None)

    def _complain(self, why: str) -> None:
        self.troubled = True
        if self.producer.ended is not None:
            self.producer.settle()
        self._warn(f"NATS does not store the events of task {self.producer.id} now: {why}")

    def _hear(self, message: NatsMessage) -> None:
        """A call of a viewer, or a question whether anybody is there, which needs no answer."""
        try:
            envelope = decode_json(message.payload)
        except MessageError:
            return
        if envelope.type == MessageType.CALL and envelope.event:
            data = envelope.value
            by = data.get("by") if isinstance(data, dict) else None
            reply = partial(self._reply, message.reply) if message.reply else _nobody
            self.producer.hear(envelope.event, data, by if isinstance(by, str) else envelope.sender, reply)


def _ids() -> Iterator[str]:
    """Unique among all runs of all tasks."""
    run, number = secrets.token_hex(6), 0
    while True:
        number += 1
        yield f"{run}-{number}"


def _nobody(payload: bytes) -> None:
    pass
