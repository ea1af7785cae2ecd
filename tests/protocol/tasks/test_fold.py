"""The laws of the task model, over any sequence of events."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.envelope import Envelope, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot, progress_of, snapshot_fields
from fanline.protocol.tasks.states import BEFORE, ENGINE_EVENTS, SUSPENDED, TERMINAL, TRANSITIONS, WORKING, TaskState
from tests.protocol.strategies import refusal
from tests.protocol.tasks.task_events import Said, fold, histories, said

FITS_NOT = (ErrorCode.TASK_ENDED, ErrorCode.BAD_STATE, ErrorCode.STALE_ATTEMPT, ErrorCode.ALREADY_ANSWERED)


def steps(history: list[Said]) -> list[tuple[Snapshot, Said, Snapshot]]:
    """(before, event, after) of the events that fit."""
    found, snapshot, time = [], Snapshot(), 1_000_000
    for event in history:
        following, time = fold(snapshot, [event], time)
        if following is not snapshot:
            found.append((snapshot, event, following))
        snapshot = following
    return found


@given(histories)
def test_a_terminal_state_is_final_for_its_attempt(history: list[Said]) -> None:
    for before, _, later in steps(history):
        assert before.state not in TERMINAL or later.attempt > before.attempt
        assert (later.ended is not None) == later.attempt_ended


@given(histories)
def test_the_attempt_never_falls(history: list[Said]) -> None:
    for before, event, later in steps(history):
        assert later.attempt >= before.attempt
        assert event.data.attempt in (None, later.attempt)


@given(histories)
def test_percent_is_within_0_and_100_or_unknown(history: list[Said]) -> None:
    for _, _, later in steps(history):
        assert later.percent is None or 0 <= later.percent <= 100


@given(histories)
def test_every_step_is_in_the_table(history: list[Said]) -> None:
    for before, event, later in steps(history):
        row = before.state if later.attempt == before.attempt else TaskState.UNKNOWN
        if row is TaskState.STALLED and event.event not in ENGINE_EVENTS:
            assert before.before is not None
            row = before.before
        target = TRANSITIONS[row][event.event]
        told_nothing = event.event is TaskEvent.ANSWERED and event.data.ask is None
        assert later.state == (row if told_nothing else before.before if target is BEFORE else target)


@given(histories)
def test_a_suspended_task_and_no_other_has_a_state_before(history: list[Said]) -> None:
    for _, _, later in steps(history):
        assert (later.before is not None) == (later.state in SUSPENDED)
        assert later.before is None or later.before in WORKING | {TaskState.QUEUED, TaskState.RETRYING}


@given(histories)
def test_a_task_that_waits_for_an_answer_has_an_open_question(history: list[Said]) -> None:
    for _, _, later in steps(history):
        asks = later.ask is not None and later.ask.open
        assert TaskState.WAITING_INPUT not in (later.state, later.before) or asks
        assert not asks or later.state not in TERMINAL


@given(histories, said())
def test_a_refused_event_changes_nothing(history: list[Said], event: Said) -> None:
    snapshot, time = fold(Snapshot(), history)
    copy = msgspec.convert(snapshot_fields(snapshot), Snapshot)
    error = refusal(lambda data: apply(snapshot, event.event, data, time), event.data)
    assert error is None or (error.code in FITS_NOT and len(str(error)) < 300)
    assert snapshot == copy


@given(histories, st.data())
def test_a_viewer_that_joins_at_any_moment_ends_with_the_same_snapshot(
    history: list[Said], data: st.DataObject
) -> None:
    joined_after = data.draw(st.integers(0, len(history)))
    early, time = fold(Snapshot(), history[:joined_after])
    told = msgspec.json.decode(msgspec.json.encode(snapshot_fields(early)))
    late, _ = fold(msgspec.convert(told, Snapshot), history[joined_after:], time)
    assert late == fold(Snapshot(), history)[0]


@given(histories)
def test_a_snapshot_survives_both_codecs(history: list[Said]) -> None:
    snapshot, _ = fold(Snapshot(), history)
    fields = snapshot_fields(snapshot)
    envelope = Envelope("pub", data=fields)
    for copy in (decode_json(encode_json(envelope)), decode_cbor(encode_cbor(envelope))):
        assert msgspec.convert(copy.value, Snapshot) == snapshot
    assert {"state", "attempt"} <= set(fields)


@given(histories, st.data())
def test_progress_that_changes_no_state_may_give_way_to_any_later_progress(
    history: list[Said], data: st.DataObject
) -> None:
    """Viewers get all that is known with each progress, so that it makes the progress before it superfluous."""
    told: list[tuple[Said, int, bool]] = []
    snapshot, time = Snapshot(), 1_000_000
    for event in history:
        before = snapshot
        snapshot, time = fold(before, [event], time)
        if snapshot is not before:
            known = event.event is TaskEvent.PROGRESS
            fields = msgspec.convert(progress_of(snapshot), TaskData) if known else event.data
            fields.attempt = snapshot.attempt
            same = (snapshot.state, snapshot.attempt) == (before.state, before.attempt)
            told.append((Said(event.event, fields), time, known and same))
    newest = max((number for number, (one, _, _) in enumerate(told) if one.event is TaskEvent.PROGRESS), default=0)
    viewed = Snapshot()
    for number, (event, at, may_give_way) in enumerate(told):
        if number >= newest or not may_give_way or data.draw(st.booleans()):
            viewed = apply(viewed, event.event, event.data, at)
    assert viewed == snapshot


@given(histories.filter(bool))
def test_the_shown_eta_rises_only_with_progress(history: list[Said]) -> None:
    shown = None
    for before, event, later in steps(history):
        if event.event is not TaskEvent.PROGRESS and later.attempt == before.attempt and shown is not None:
            assert later.eta is None or later.eta <= shown
        shown = later.eta


@given(histories, st.permutations(["ann", "bob", "cyd", "dan"]))
def test_exactly_one_answer_wins_whatever_the_order(history: list[Said], order: list[str]) -> None:
    snapshot, time = fold(Snapshot(), history)
    snapshot = apply(snapshot, TaskEvent.STARTED, TaskData(attempt=snapshot.attempt + 1), time)
    snapshot = apply(snapshot, TaskEvent.ASKED, TaskData(ask="q", text="deploy?"), time)
    refused = []
    for by in order:
        try:
            snapshot = apply(snapshot, TaskEvent.ANSWERED, TaskData(ask="q", by=by, value=by), time)
        except MessageError as error:
            refused.append((by, error.code, str(error)))
    assert snapshot.ask is not None
    assert (snapshot.ask.by, snapshot.ask.value, snapshot.state) == (order[0], order[0], TaskState.RUNNING)
    assert refused == [(by, "already_answered", f"already answered by {order[0]}") for by in order[1:]]
