"""What the stream holds for a task's producer: the answer to its question, a request to stop. No I/O.

The stream is the truth: what is stored there is delivered, by the worker that was asked, or else by the task monitor,
until the producer has replied, and the reply is stored in turn. A delivery may reach the producer more than once, and
has the same id each time; an answer also has the id of its question.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import error_of
from fanline.protocol.tasks.events import MAX_TEXT, AskKind, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop

PATIENCE_SECONDS = 1.0
"""For so long after something was stored its delivery is left to the worker that has stored it."""
LONGEST_REST_SECONDS = 30.0
"""Between two attempts while no sign of the producer is heard; its next beat ends the rest."""
CANCEL = "cancel"


class Delivery(NamedTuple):
    """One call to the producer that the stream knows of."""

    id: str
    """The `call` of the event that was stored."""
    verb: str
    data: dict[str, Any]
    by: str
    again: int = 0
    """How often the question had been asked again."""

    def confirmation(self, refusal: str | None = None) -> tuple[TaskEvent, dict[str, Any]]:
        """The event that says that the producer has replied, and its data; `refusal`: the producer's words."""
        told = {} if refusal is None else {"message": refusal[:MAX_TEXT]}
        if self.verb != CANCEL:
            return TaskEvent.DELIVERED, {"ask": self.data["ask"]} | ({"again": self.again} if self.again else {}) | told
        if refusal is not None:
            return TaskEvent.CANCEL_REFUSED, told
        deadline = self.data["deadline"]
        # The fold accepts only deadlines above 0, and knows that of the request.
        return TaskEvent.CANCEL_ACCEPTED, {"by": self.by} | ({"deadline": deadline} if deadline > 0 else {})


def is_undelivered(snapshot: Snapshot) -> bool:
    """Whether the producer has not confirmed something that the stream has for it."""
    return not snapshot.ended_for_good and next(undelivered(snapshot, 0), None) is not None


def undelivered(snapshot: Snapshot, now: int) -> Iterator[Delivery]:
    """What the producer has not confirmed; `now`: Unix ms."""
    ask, stop = snapshot.ask, snapshot.stop
    if ask is not None and _waits(ask) and not snapshot.attempt_ended:  # no caller waits for it after a failed attempt
        yield answer_delivery(ask.call or ask.id, _verb(ask), ask.id, ask.value, ask.by or "", ask.again)
    if stop is not None and not stop.accepted:
        yield stop_delivery(stop.call or "", _seconds_left(stop, now), snapshot.attempt, stop.by or "")


def answer_delivery(call_id: str, verb: str, ask: str, value: Any, by: str, again: int = 0) -> Delivery:
    return Delivery(call_id, verb, {"ask": ask, "value": value}, by, again)


def stop_delivery(call_id: str, deadline: float, attempt: int, by: str) -> Delivery:
    """A request to stop names its attempt, since the producer of the next one may already listen."""
    return Delivery(call_id, CANCEL, {"deadline": deadline, "attempt": attempt}, by)


def call_payload(channel: str, call_id: str, verb: str, data: Any, by: str, time: int) -> bytes:
    """What a producer is sent."""
    envelope = Envelope(MessageType.CALL, channel=channel, id=call_id, event=verb, data=data, sender=by, time=time)
    return encode_json(envelope)


def reply_data(reply: bytes) -> Any:
    """The data of a producer's reply: an `ok` or `err` envelope, any other JSON, or nothing. MessageError(REFUSED) with
    the producer's words.
    """
    if not reply:
        return None
    try:
        value = msgspec.json.decode(reply)
        envelope = decode_json(reply) if isinstance(value, dict) and "t" in value else None
    except (msgspec.MsgspecError, MessageError, UnicodeError, RecursionError):
        raise MessageError(ErrorCode.REFUSED, "the producer's answer is not JSON") from None
    if envelope is None:
        return Raw(reply)
    if envelope.type == MessageType.ERR:
        raise MessageError(ErrorCode.REFUSED, error_of(envelope).message)
    return envelope.data


class DeliveryQueue:
    """The tasks, by channel, for which something is undelivered, and when to try next, by Trio's clock."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        return len(self._next)

    def note(self, channel: str, snapshot: Snapshot, now: float) -> None:
        """A task has changed, or is monitored from now on."""
        if is_undelivered(snapshot):
            self._next[channel] = min(now + PATIENCE_SECONDS, self._next.get(channel, now + PATIENCE_SECONDS))
        else:
            self.drop(channel)

    def beat(self, channel: str, now: float) -> None:
        """A task's producer is there, perhaps after having been away."""
        if channel in self._next and self._failures.get(channel):
            self._next[channel] = now

    def drop(self, channel: str) -> None:
        """Nothing is to be delivered."""
        if self._next.pop(channel, None) is not None:
            self._failures.pop(channel, None)

    def take(self, now: float, room: int) -> list[str]:
        """The tasks to try now, at most `room` together with those under way; call `done` after each."""
        due = [channel for channel, moment in self._next.items() if moment <= now and channel not in self._under_way]
        taken = due[: max(0, room - len(self._under_way))]
        self._under_way.update(taken)
        for channel in taken:
            self._next[channel] = now + LONGEST_REST_SECONDS
        return taken

    def done(self, channel: str, now: float) -> None:
        """An attempt is over. Unless the stream says soon that it was delivered, the next one follows."""
        self._under_way.discard(channel)
        if channel in self._next:
            failures = self._failures[channel] = self._failures.get(channel, 0) + 1
            rest = min(PATIENCE_SECONDS * 2 ** min(failures - 1, 10), LONGEST_REST_SECONDS)
            self._next[channel] = min(self._next[channel], now + rest)


def _waits(ask: Ask) -> bool:
    return ask.by is not None and not ask.delivered


def _verb(ask: Ask) -> str:
    if ask.verb is not None:
        return ask.verb
    return "input" if ask.kind is AskKind.INPUT else "reject" if ask.value is False else "approve"


def _seconds_left(stop: Stop, now: int) -> float:
    return 0.0 if stop.deadline is None else max(0.0, (stop.deadline - now) / 1000)
