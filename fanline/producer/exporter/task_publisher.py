"""Publishes the events of one task: in order, until JetStream acknowledges them, over as many connections as needed.
What may be in flight together is in in_flight.py.

Without I/O: what is published goes to a NatsRequests; `step`, with the time, does what is due.

| state      | it waits for                                       | next                                        |
|------------|----------------------------------------------------|---------------------------------------------|
| WAITING    | the end of an earlier run of the task, whose       | NUMBERING                                   |
|            | attempt its own follows                            |                                             |
| NUMBERING  | JetStream's word on the number of this run         | PUBLISHING, at once if the job named it     |
| PUBLISHING | events, acknowledgements, the end of a delay       | FINISHED, when the task has ended and all   |
|            |                                                    | is stored                                   |
| FINISHED   | nothing                                            |                                             |

`give_up` leads from each state to FINISHED. Heartbeats are sent from NUMBERING to FINISHED.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial

from fanline.base.backoff import Backoff
from fanline.nats.jetstream import check_answer
from fanline.nats.requests import NatsRequests
from fanline.producer.exporter.attempt import AttemptQuestion
from fanline.producer.exporter.in_flight import InFlight
from fanline.producer.exporter.pending_publish import OVERHEAD, PendingPublish, pending_publishes, serial_numbers
from fanline.producer.run.buffer import BufferedEvent
from fanline.producer.run.producer import Producer
from fanline.protocol.envelope import MessageType, decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import Complaint
from fanline.protocol.nats.subjects import Direction, to_subject
from fanline.protocol.tasks.events import TaskEvent

ACK_SECONDS = 10.0
"""After this long without an acknowledgement, everything unacknowledged is published again."""
_PONG = b'{"v":1,"t":"pong"}'
_HEARTBEATS = 3  # heartbeats sent within the interval that the task declares
_NEVER = math.inf

Publish = Callable[[str, bytes], None]
"""Publishes a payload to a subject; may be called from any thread."""


class PublisherState(Enum):
    """What a publisher waits for."""

    WAITING = auto()
    NUMBERING = auto()
    PUBLISHING = auto()
    FINISHED = auto()


class TaskPublisher:
    """The exporter's side of one producer. `warn` gets a sentence when the task's events cannot be stored, and
    the reason alone.
    """

    def __init__(
        self,
        producer: Producer,
        previous: "TaskPublisher | None",
        requests: NatsRequests,
        reply: Publish,
        warn: Callable[[str, str], None],
    ) -> None:
        self.producer = producer
        self.state = PublisherState.WAITING
        self.due = -_NEVER
        """When `step` is needed."""
        self.troubled = False
        """NATS is reachable but does not store."""
        self._previous = previous
        self._requests = requests
        self._reply = reply
        self._warn = warn
        self._sid: int | None = None
        self._question: AttemptQuestion | None = None
        self._ready = deque[PendingPublish]()  # the rest of an event that became several messages
        self._in_flight = InFlight()
        self._heard = self._refused = False  # an answer came since the last step; one of them was an error
        self._last_ack = 0.0
        self._retry = -_NEVER  # before that, nothing is published or asked
        self._next_beat = -_NEVER
        self._backoff = Backoff(base=0.1, cap=5.0)
        self._serials = serial_numbers()
        self._subject = to_subject(producer.channel)

    @property
    def finished(self) -> bool:
        """Everything is stored, or has been given up."""
        return self.state is PublisherState.FINISHED

    @property
    def size(self) -> int:
        """Bytes of what is not acknowledged, about."""
        return self.producer.size + self._in_flight.size + sum(len(pending.payload) for pending in self._ready)

    def trim(self) -> int:
        """Drop all output, and whatever else is large. Returns how many lines that were never published."""
        self._ready = deque(pending for pending in self._ready if pending.event is not TaskEvent.OUTPUT)
        self._in_flight.forget_output()
        return self.producer.trim()

    def connected(self, now: float) -> None:
        """There is a new connection: send again what the last one may have lost."""
        self._question, self._next_beat = None, -_NEVER
        self._publish_again(now)
        self.wake()

    def wake(self) -> None:
        """There is something new: an event of the job, or an answer."""
        self.due = -_NEVER

    def step(self, now: float) -> None:
        """Publish what is due, on the present connection."""
        if self.state is PublisherState.WAITING and (self._previous is None or self._previous.finished):
            self._begin()
        due = _NEVER
        if self.state is PublisherState.NUMBERING:
            due = self._number(now)
        if self.state is PublisherState.PUBLISHING:
            due = self._publish_events(now)
        self.due = min(due, self._beat(now))

    def give_up(self) -> tuple[int, int]:
        """Stop. What is not acknowledged is published a last time, all at once, in order: JetStream may only be slow,
        and a task whose end is not stored would go on forever. Returns how many events, and how many lines that had
        not been published before, may be lost.
        """
        rest = self.producer.discard()
        lines = [len(event.data["lines"]) for event in rest if event.event is TaskEvent.OUTPUT]
        events = len(self._in_flight) + len(self._ready) + len(rest) - len(lines)
        if self.state is PublisherState.PUBLISHING:
            self._publish_last(rest)
        self._finish()
        return events, sum(lines)

    def _publish_last(self, rest: list[BufferedEvent]) -> None:
        for event in rest:
            self._ready.extend(self._messages_of(event))
        for pending in (*(pending for pending, _ in self._in_flight), *self._ready):
            self._requests.publish(self._subject, pending.payload, pending.headers)

    def denied(self, complaint: Complaint) -> None:
        """NATS does not permit something; this task may be concerned."""
        asked = () if self._question is None else self._question.subjects
        if complaint.subject in (self._subject, self._requests.inbox, *asked):
            self._report_trouble(complaint.text)

    # --- beginning and end ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._previous, self.state = None, PublisherState.NUMBERING
        if self.producer.attempt is not None:
            self._begin_publishing()

    def _begin_publishing(self) -> None:
        """From now on calls are answered, too: before, a request to stop may have been for the run before this one."""
        self.state = PublisherState.PUBLISHING
        self._sid = self._requests.subscribe(to_subject(self.producer.channel, Direction.CTL), self._handle_call)
        self._next_beat = -_NEVER  # which says that calls can be delivered

    def _finish(self) -> None:
        self.state = PublisherState.FINISHED
        if self._sid is not None:
            self._requests.unsubscribe(self._sid)
            self._sid = None

    def _beat(self, now: float) -> float:
        if self.state in (PublisherState.WAITING, PublisherState.FINISHED):
            return _NEVER
        if now >= self._next_beat:
            self._requests.publish(to_subject(self.producer.channel, Direction.BEAT), b"")
            self._next_beat = now + self.producer.settings.heartbeat / _HEARTBEATS
        return self._next_beat

    def _number(self, now: float) -> float:
        """Ask for the attempt, again and again until JetStream can tell."""
        if now < self._retry:
            return self._retry
        if self._question is None:
            self._question = AttemptQuestion(self._requests, self.producer.channel, now, self.wake)
        deadline = self._question.deadline
        try:
            attempt = self._question.attempt(now)
        except NatsError as error:
            self._question, self._retry = None, now + self._backoff.next_delay()
            self._report_trouble(str(error))
            return self._retry
        if attempt is not None:
            self._question, self.producer.attempt = None, attempt
            self._retry = -_NEVER
            self._backoff.reset()
            self._begin_publishing()
        return deadline

    # --- publishing ----------------------------------------------------------------------------------------------

    def _publish_events(self, now: float) -> float:
        self._take_note(now)
        if now < self._retry:
            return self._retry
        self._retry_if_needed(now)
        while (pending := self._next(now)) is not None:
            if not self._in_flight:
                self._last_ack = now
            self._publish_one(pending)
        if self._in_flight:
            due = self.producer.output_due if self._in_flight.room else _NEVER
            return min(due, self._last_ack + ACK_SECONDS)
        if self.producer.ended is not None and self.producer.due == _NEVER:
            self._finish()
        return self.producer.due

    def _take_note(self, now: float) -> None:
        """Note the answers that came since the last step."""
        if self._heard:
            self._heard, self._last_ack = False, now
        if self._refused and self._retry == -_NEVER:
            self._retry = now + self._backoff.next_delay()

    def _retry_if_needed(self, now: float) -> None:
        if self._refused:
            self._publish_again(now)
        elif self._in_flight and now >= self._last_ack + ACK_SECONDS:
            self._report_trouble("JetStream does not answer")
            self._publish_again(now)

    def _next(self, now: float) -> PendingPublish | None:
        """The next message, if one is due and may be published while others are in flight."""
        room = self._in_flight.room
        if not self._ready:
            for event in self.producer.take(now, min(1, room), only_output=bool(self._in_flight)):
                self._ready.extend(self._messages_of(event))
        return self._ready.popleft() if self._ready and room else None

    def _messages_of(self, event: BufferedEvent) -> Iterator[PendingPublish]:
        assert self.producer.attempt is not None
        limit = self._requests.info.max_payload
        if len(event.data.get("result", b"")) > limit - OVERHEAD:
            self.producer.complain("result", f"the result is left out: this NATS takes messages of {limit:,} bytes")
        return pending_publishes(
            event,
            channel=self.producer.channel,
            attempt=self.producer.attempt,
            serials=self._serials,
            time=_unix_ms(event.time),
            limit=limit,
        )

    def _publish_again(self, now: float) -> None:
        """Publish everything in flight. JetStream ignores what it has stored in the last two minutes, and the fold what
        it has taken.
        """
        self._refused, self._retry, self._last_ack = False, -_NEVER, now
        for pending, request in self._in_flight:
            self._publish_one(pending, request)

    def _publish_one(self, pending: PendingPublish, request: int | None = None) -> None:
        take = partial(self._take_ack, pending)
        request = self._requests.ask(self._subject, pending.payload, take, pending.headers, number=request)
        self._in_flight.add(pending, request)

    def _take_ack(self, pending: PendingPublish, answer: NatsMessage) -> None:
        self._heard = True
        self.wake()
        try:
            check_answer(answer.payload)
        except NatsError as error:
            self._refused = True
            self._report_trouble(str(error))
        else:
            self.troubled = False
            self._backoff.reset()
            self._in_flight.remove(pending)

    def _report_trouble(self, why: str) -> None:
        self.troubled = True
        if self.producer.ended is not None:
            self.producer.settle()
        self._warn(f"NATS is not storing the events of task {self.producer.id}: {why}", why)

    # --- calls ---------------------------------------------------------------------------------------------------

    def _handle_call(self, message: NatsMessage) -> None:
        """A viewer's call, or the engine asking whether a producer is attached.

        A call that names no subject for its answer is not the engine's. Another producer can have JetStream deliver it
        here, which names none.
        """
        if not message.reply:
            return
        try:
            envelope = decode_json(message.payload)
        except MessageError:
            return
        reply = partial(self._reply, message.reply)
        if envelope.type == MessageType.PING:
            reply(_PONG)
        elif envelope.type == MessageType.CALL and envelope.event:
            data = envelope.value
            by = data.get("by") if isinstance(data, dict) else None
            sender = by if isinstance(by, str) else envelope.sender
            self.producer.handle_call(envelope.event, data, sender, reply, envelope.id or "")


def _unix_ms(monotonic: float) -> int:
    return round((time.time() - time.monotonic() + monotonic) * 1000)
