"""What is undelivered according to a snapshot, what a producer is sent, and when the next attempt is due."""

from typing import Any

import msgspec
import pytest

from fanline.engine.tasks.deliveries import (
    LONGEST_REST_SECONDS,
    PATIENCE_SECONDS,
    Delivery,
    DeliveryQueue,
    answer_delivery,
    call_payload,
    is_undelivered,
    stop_delivery,
    undelivered,
)
from fanline.protocol.tasks.events import MAX_TEXT, AskKind, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import TaskState

ANSWER = Ask("q", by="ann", value="blue", verb="approve", call="a1")
STOP = Stop("bob", 5000, "s1")
A, B = "task:a", "task:b"


def told(snapshot: Snapshot, now: int = 1000) -> list[Delivery]:
    return list(undelivered(snapshot, now))


def test_an_answer_and_a_stop_are_delivered_until_the_stream_says_that_the_producer_has_them() -> None:
    snapshot = Snapshot(TaskState.CANCELLING, 2, ask=ANSWER, stop=STOP)
    assert told(snapshot) == [
        Delivery("a1", "approve", {"ask": "q", "value": "blue"}, "ann"),
        Delivery("s1", "cancel", {"deadline": 4.0, "attempt": 2}, "bob"),
    ]
    assert is_undelivered(snapshot)
    heard = msgspec.structs.replace
    done = heard(snapshot, ask=heard(ANSWER, delivered=True), stop=heard(STOP, accepted=True))
    assert (told(done), is_undelivered(done)) == ([], False)


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(),
        Snapshot(TaskState.WAITING_INPUT, 1, ask=Ask("q")),
        Snapshot(TaskState.RUNNING, 1, ask=Ask("q", expired=True)),
        Snapshot(TaskState.RETRYING, 1, ask=ANSWER),
        Snapshot(TaskState.COMPLETED, 1, ask=ANSWER, stop=STOP),
    ],
)
def test_without_an_answer_and_after_the_end_nothing_is_to_be_delivered(snapshot: Snapshot) -> None:
    assert not is_undelivered(snapshot)


def test_the_deadline_of_a_late_stop_is_what_is_left_of_it() -> None:
    (late,) = told(Snapshot(TaskState.CANCELLING, 1, stop=STOP), now=9000)
    assert late.data["deadline"] == 0
    (without,) = told(Snapshot(TaskState.CANCELLING, 1, stop=Stop()))
    assert (without.id, without.data["deadline"], without.by) == ("", 0, "")


@pytest.mark.parametrize(
    ("ask", "verb"),
    [
        (Ask("q", by="ann", value=True), "approve"),
        (Ask("q", by="ann", value=False), "reject"),
        (Ask("q", by="ann", value=False, verb="approve"), "approve"),
        (Ask("q", kind=AskKind.INPUT, by="ann", value="x"), "input"),
    ],
)
def test_an_answer_of_another_publisher_may_not_say_its_verb(ask: Ask, verb: str) -> None:
    (answer,) = told(Snapshot(TaskState.RUNNING, 1, ask=ask))
    assert (answer.id, answer.verb) == ("q", verb)


def test_a_confirmation_says_what_the_producer_has_replied() -> None:
    answer, stop = answer_delivery("a1", "approve", "q", True, "ann"), stop_delivery("s1", 9.0, 1, "bob")
    assert answer.confirmation() == (TaskEvent.DELIVERED, {"ask": "q"})
    assert answer.confirmation("no") == (TaskEvent.DELIVERED, {"ask": "q", "message": "no"})
    assert stop.confirmation() == (TaskEvent.CANCEL_ACCEPTED, {"by": "bob", "deadline": 9.0})
    assert stop.confirmation("n" * (MAX_TEXT + 1)) == (TaskEvent.CANCEL_REFUSED, {"message": "n" * MAX_TEXT})


def test_a_producer_is_sent_an_envelope() -> None:
    payload: Any = msgspec.json.decode(call_payload(A, "a1", "approve", {"ask": "q"}, "ann", 7))
    assert payload == {
        "v": 1, "t": "call", "c": A, "i": "a1", "e": "approve", "d": {"ask": "q"}, "u": "ann", "ts": 7,
    }  # fmt: skip


# --- the queue ----------------------------------------------------------------------------------------------------

OPEN = Snapshot(TaskState.RUNNING, 1, ask=ANSWER)
DONE = Snapshot(TaskState.RUNNING, 1, ask=msgspec.structs.replace(ANSWER, delivered=True))


def queue_of(*channels: str) -> DeliveryQueue:
    queue = DeliveryQueue()
    for channel in channels:
        queue.note(channel, OPEN, 0)
    return queue


def test_what_was_stored_is_left_for_a_while_to_the_worker_that_has_stored_it() -> None:
    queue = queue_of(A)
    assert queue.take(PATIENCE_SECONDS / 2, 9) == []
    queue.beat(A, PATIENCE_SECONDS / 2)
    assert queue.take(PATIENCE_SECONDS / 2, 9) == []
    assert queue.take(PATIENCE_SECONDS, 9) == [A]


def test_what_is_delivered_is_not_tried_again() -> None:
    queue = queue_of(A, B)
    queue.note(A, DONE, 0)
    assert queue.take(PATIENCE_SECONDS, 9) == [B]
    queue.drop(B)
    queue.done(B, PATIENCE_SECONDS)
    assert (len(queue), queue.take(1e9, 9)) == (0, [])


def test_rests_grow_up_to_a_bound_and_a_beat_ends_them() -> None:
    queue, now, rests = queue_of(A), PATIENCE_SECONDS, list[float]()
    assert queue.take(now, 9) == [A]
    for _ in range(8):
        assert queue.take(now + 1e9, 9) == []  # it is under way
        queue.done(A, now)
        rests.append(next(rest for rest in range(1, 100) if queue.take(now + rest, 9)))
        now += rests[-1]
    assert rests == [1, 2, 4, 8, 16, *[LONGEST_REST_SECONDS] * 3]
    queue.done(A, now)
    queue.beat(A, now + 1)
    assert queue.take(now + 1, 9) == [A]


def test_a_beat_during_an_attempt_leads_to_the_next_one_at_once() -> None:
    queue = queue_of(A)
    queue.take(1, 9)
    queue.done(A, 1)
    assert queue.take(9, 9) == [A]
    queue.beat(A, 10)
    queue.done(A, 12)
    assert queue.take(12, 9) == [A]


def test_only_so_many_attempts_are_under_way() -> None:
    queue = queue_of(A, B)
    assert queue.take(9, 1) == [A]
    assert queue.take(9, 1) == []
    queue.done(A, 9)
    assert queue.take(9, 1) == [B]
