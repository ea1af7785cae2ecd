"""The fold of a task in detail: what becomes of an expected message, a fresh attempt's estimate, records."""

import logging

import msgspec
import pytest
from msgspec import Raw

from fanline.engine.bus.stored import Epoch
from fanline.engine.tasks.fold import TaskFold, check_task_message
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.estimate import Estimate
from fanline.protocol.tasks.events import TaskEvent

CHANNEL = "task:build"


def event(kind: str, time: int = 0, message_id: str | None = None, **data: object) -> Envelope:
    return Envelope("pub", CHANNEL, event=kind, id=message_id, data=Raw(msgspec.json.encode(data)), time=time)


def fold_of(*events: Envelope) -> TaskFold:
    fold = TaskFold(CHANNEL)
    for number, one in enumerate(events, 1):
        fold.take(one, number)
    return fold


# --- expected messages --------------------------------------------------------------------------------------------


def test_who_expects_a_message_learns_that_it_was_taken() -> None:
    fold = fold_of()
    with fold.expect("mine") as mine, fold.expect("other") as other:
        fold.take(event("task_started", message_id="mine"), 1)
        assert (mine.settled.is_set(), mine.refusal, other.settled.is_set()) == (True, None, False)


def test_who_expects_a_message_learns_why_it_was_refused() -> None:
    refused: list[tuple[str, MessageError]] = []
    fold = TaskFold(CHANNEL, lambda channel, error: refused.append((channel, error)))
    fold.take(event("task_completed"), 1)
    with fold.expect("mine") as outcome:
        assert fold.take(event("task_progress", message_id="mine"), 2) is None
    assert outcome.settled.is_set()
    assert outcome.refusal is not None
    assert outcome.refusal.code == ErrorCode.TASK_ENDED
    assert refused == [(CHANNEL, outcome.refusal)]


def test_a_message_that_is_no_event_may_be_expected_too() -> None:
    fold = fold_of()
    with fold.expect("mine") as outcome:
        note = event("note", message_id="mine")
        assert fold.take(note, 1) is note
    assert (outcome.settled.is_set(), outcome.refusal) == (True, None)


def test_a_message_is_no_longer_expected_after_the_block() -> None:
    fold = fold_of()
    with fold.expect("mine") as outcome, fold.expect(""):
        pass
    fold.take(event("task_started", message_id="mine"), 1)
    fold.take(event("task_progress"), 2)
    assert not outcome.settled.is_set()


# --- estimates ----------------------------------------------------------------------------------------------------


def steady(attempt: int | None = None) -> list[Envelope]:
    """Ten seconds of progress, one percent a second."""
    return [event("task_progress", 1000 * second, percent=second, attempt=attempt) for second in range(11)]


def test_a_new_attempt_has_an_estimate_of_its_own() -> None:
    fold = fold_of(*steady())
    assert fold.snapshot.rate == pytest.approx(1)
    fold.take(event("task_progress", 11_000, percent=50, attempt=2), 20)
    assert (fold.snapshot.rate, fold.estimate) == (None, Estimate(50, 11_000, 11_000))
    again = fold_of(*steady(), event("task_completed", 11_000), event("task_started", 12_000))
    assert again.estimate == Estimate()


def test_a_start_within_an_attempt_keeps_its_estimate() -> None:
    assert fold_of(*steady(), event("task_started", 11_000)).estimate == fold_of(*steady()).estimate


def test_a_producer_that_counts_in_something_else_begins_a_new_estimate() -> None:
    fold = fold_of(*steady(), event("task_progress", 11_000, done=500, total=1000))
    assert fold.estimate == Estimate(500, 11_000, 11_000)
    fold.take(event("task_progress", 12_000, done=510), 20)
    assert fold.snapshot.rate == pytest.approx(10)
    assert fold.snapshot.eta == pytest.approx(49)
    fold.take(event("task_progress", 13_000, percent=60), 21)
    assert fold.estimate == Estimate(60, 13_000, 13_000)


def test_percent_that_comes_with_a_count_does_not_begin_a_new_estimate() -> None:
    counted = [event("task_progress", 1000 * number, done=number, total=100) for number in range(3)]
    fold = fold_of(*counted, event("task_progress", 3000, done=3, percent=3))
    assert fold.estimate.begun == 0
    assert fold.snapshot.rate == pytest.approx(1)


# --- records ------------------------------------------------------------------------------------------------------


def test_a_snapshot_message_names_its_channel() -> None:
    message = fold_of(event("task_started", 5)).snapshot_message(10, 3)
    assert (message.type, message.channel, message.offset, message.event) == ("pub", CHANNEL, 3, TaskEvent.SNAPSHOT)
    assert (message.time or 0) > 0


def test_a_record_may_have_fewer_lines() -> None:
    fold = fold_of(event("task_output", lines=["a", "b", "c"]))
    other = TaskFold(CHANNEL)
    other.load(fold.record(Epoch("e"), 2), Epoch("e"))
    assert [line for batch in other.output.newest(9) for line in batch.lines] == ["b", "c"]
    assert (other.snapshot, other.offset, other.estimate) == (fold.snapshot, 1, fold.estimate)


def test_a_broken_record_is_logged_with_its_channel_and_its_fault(caplog: pytest.LogCaptureFixture) -> None:
    TaskFold(CHANNEL).load(b'{"snapshot":{}}', Epoch("e"))
    assert [record.message for record in caplog.records] == [f"the record of {CHANNEL} cannot be read: 'estimate'"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_record_that_reaches_no_further_is_left_aside() -> None:
    fold, record = fold_of(event("task_started", title="ours")), fold_of(event("task_started", title="theirs"))
    fold.load(record.record(Epoch("e")), Epoch("e"))
    assert fold.snapshot.title == "ours"


def test_a_message_that_cannot_be_read_only_moves_the_offset_on() -> None:
    fold = fold_of(event("task_started"))
    for offset in (5, 3):
        fold.skip(offset)
    assert fold.offset == 5


def test_a_recreated_stream_begins_at_0_and_the_task_stays() -> None:
    fold = fold_of(event("task_started"))
    fold.restart(forget=False)
    assert (fold.offset, fold.snapshot.state) == (0, "running")


def test_a_stream_that_went_back_begins_at_0_and_the_task_with_it() -> None:
    fold = fold_of(event("task_started"), event("task_output", lines=["x"]))
    fold.restart(forget=True)
    assert (fold.offset, fold.snapshot.state, fold.snapshot.lines) == (0, "unknown", 0)


# --- what producers may say ---------------------------------------------------------------------------------------


def test_a_snapshot_is_what_only_the_engine_says() -> None:
    with pytest.raises(MessageError, match=r"^only the engine says task_snapshot$") as caught:
        check_task_message(event("task_snapshot"), signed=True)
    assert caught.value.code == ErrorCode.BAD_MESSAGE


def test_an_event_of_the_task_never_expires_and_any_other_message_may() -> None:
    progress, note = event("task_progress"), event("note")
    for message in (progress, note):
        message.ttl = 5
        check_task_message(message, signed=False)
    assert (progress.ttl, note.ttl) == (None, 5)
