"""The table of the task model, and its rules one by one."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode
from fanline.protocol.tasks.events import MAX_RESULT_BYTES, TaskData, TaskEvent, data_of, with_data
from fanline.protocol.tasks.fold import CONFLATED, apply, conflation_key
from fanline.protocol.tasks.snapshot import Snapshot, progress_of, snapshot_fields
from fanline.protocol.tasks.states import ENGINE_EVENTS, TERMINAL, TRANSITIONS, TaskState
from tests.protocol.strategies import refusal
from tests.protocol.tasks.task_events import LIVE, PUBLISHED, Said, fold

E = TaskEvent


def after(*events: TaskEvent | tuple[TaskEvent, dict[str, Any]]) -> Snapshot:
    """The snapshot after events that all fit, a second apart."""
    snapshot = Snapshot()
    for number, event in enumerate(events):
        name, fields = event if isinstance(event, tuple) else (event, {})
        snapshot = apply(snapshot, name, TaskData(**fields), 1000 * number)
    return snapshot


def why_not(snapshot: Snapshot, event: TaskEvent, **fields: Any) -> ErrorCode | None:
    """The code of the refusal; None if the event fits."""
    error = refusal(lambda data: apply(snapshot, event, data, 0), TaskData(**fields))
    return None if error is None else error.code


# --- the table ----------------------------------------------------------------------------------------------------


def reachable(start: TaskState) -> set[TaskState]:
    """By the table alone, within one attempt. BEFORE leads back, so to no new state."""
    found, new = {start}, [start]
    while new:
        targets = set(TRANSITIONS[new.pop()].values())
        fresh = {target for target in targets if isinstance(target, TaskState)} - found
        found |= fresh
        new += fresh
    return found


def test_every_state_is_reachable() -> None:
    assert reachable(TaskState.UNKNOWN) == set(TaskState)


@pytest.mark.parametrize("state", [state for state in TaskState if state not in TERMINAL])
def test_every_end_is_reachable_from_every_live_state(state: TaskState) -> None:
    assert reachable(state) >= TERMINAL
    ends = {E.COMPLETED, E.FAILED, E.CANCELLED, E.TIMED_OUT}
    assert {TRANSITIONS[state][event] for event in ends} == TERMINAL


def test_the_table_has_a_row_for_every_state_and_a_use_for_every_event() -> None:
    assert set(TRANSITIONS) == set(TaskState)
    assert {event for row in TRANSITIONS.values() for event in row} == set(PUBLISHED)
    assert all(not TRANSITIONS[state] for state in TERMINAL)


# --- single rules -------------------------------------------------------------------------------------------------

ASK = (E.ASKED, {"ask": "q", "text": "deploy?", "deadline": 5})
ANSWER = (E.ANSWERED, {"ask": "q", "by": "ann", "value": True})

SPEAKS: list[Any] = [E.STARTED, E.PROGRESS, E.OUTPUT, E.HEARD]
SILENT_IN: list[tuple[TaskState, list[Any]]] = [
    (TaskState.RUNNING, [E.STARTED]),
    (TaskState.PAUSED, [E.STARTED, E.PAUSED]),
    (TaskState.WAITING_INPUT, [E.STARTED, ASK]),
]


@pytest.mark.parametrize("word", SPEAKS)
@pytest.mark.parametrize(("state", "way"), SILENT_IN)
def test_a_stalled_task_whose_producer_speaks_returns_to_the_state_before(
    state: TaskState, way: list[Any], word: TaskEvent
) -> None:
    stalled = after(*way, E.STALLED)
    assert (stalled.state, stalled.before) == (TaskState.STALLED, state)
    back = apply(stalled, word, TaskData(), 9000)
    assert (back.state, back.before) == (state, None)


CASES: list[tuple[str, list[Any], TaskState, TaskState | None]] = [
    ("an answer is no sign of life", [E.STARTED, ASK, E.STALLED, ANSWER], TaskState.STALLED, TaskState.RUNNING),
    (
        "nor is its expiry",
        [E.STARTED, ASK, E.STALLED, (E.ASK_EXPIRED, {"ask": "q"})],
        TaskState.STALLED,
        TaskState.RUNNING,
    ),
    ("a stalled task may end", [E.STARTED, E.STALLED, E.COMPLETED], TaskState.COMPLETED, None),
    ("a refused cancel goes back", [E.PAUSED, E.CANCEL_REQUESTED, E.CANCEL_REFUSED], TaskState.PAUSED, None),
    ("also from stalled", [E.PAUSED, E.STALLED, E.CANCEL_REQUESTED, E.CANCEL_REFUSED], TaskState.PAUSED, None),
    (
        "to where the task is by now",
        [E.STARTED, ASK, E.CANCEL_REQUESTED, ANSWER, E.CANCEL_REFUSED],
        TaskState.RUNNING,
        None,
    ),
    (
        "a question asked meanwhile is asked",
        [E.STARTED, E.CANCEL_REQUESTED, ASK, E.CANCEL_REFUSED],
        TaskState.WAITING_INPUT,
        None,
    ),
    (
        "a queued task that began meanwhile runs",
        [E.CREATED, E.CANCEL_REQUESTED, E.PROGRESS, E.CANCEL_REFUSED],
        TaskState.RUNNING,
        None,
    ),
    ("a question may expire in a pause", [ASK, E.PAUSED, (E.ASK_EXPIRED, {"ask": "q"})], TaskState.PAUSED, None),
    ("input nobody asked for changes no state", [ASK, (E.ANSWERED, {"by": "ann"})], TaskState.WAITING_INPUT, None),
    (
        "nor the one behind",
        [ASK, E.CANCEL_REQUESTED, (E.ANSWERED, {"by": "ann"})],
        TaskState.CANCELLING,
        TaskState.WAITING_INPUT,
    ),
    ("a retry begins anew", [E.COMPLETED, (E.STARTED, {"attempt": 2})], TaskState.RUNNING, None),
]


@pytest.mark.parametrize(("events", "state", "behind"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_way_leads_to_its_state(events: list[Any], state: TaskState, behind: TaskState | None) -> None:
    snapshot = after(*events)
    assert (snapshot.state, snapshot.before) == (state, behind)


REFUSED: list[tuple[list[Any], TaskEvent, dict[str, Any], ErrorCode]] = [
    ([E.COMPLETED], E.PROGRESS, {}, ErrorCode.TASK_ENDED),
    ([E.COMPLETED], E.ANSWERED, {"ask": "q"}, ErrorCode.TASK_ENDED),
    ([(E.STARTED, {"attempt": 2})], E.OUTPUT, {"attempt": 1}, ErrorCode.STALE_ATTEMPT),
    ([E.STARTED], E.ANSWERED, {"ask": "q"}, ErrorCode.BAD_STATE),
    ([ASK], E.ANSWERED, {"ask": "another"}, ErrorCode.BAD_STATE),
    ([ASK, (E.ASK_EXPIRED, {"ask": "q"})], E.ANSWERED, {"ask": "q"}, ErrorCode.ALREADY_ANSWERED),
    ([ASK, E.RESUMED], E.ANSWERED, {"ask": "q"}, ErrorCode.ALREADY_ANSWERED),
    ([E.STARTED], E.HEARD, {}, ErrorCode.BAD_STATE),
    ([E.CREATED], E.STALLED, {}, ErrorCode.BAD_STATE),
    ([], E.CANCEL_REQUESTED, {}, ErrorCode.BAD_STATE),
    ([E.STARTED, E.CANCEL_REQUESTED, E.CANCEL_ACCEPTED], E.CANCEL_REFUSED, {}, ErrorCode.BAD_STATE),
]


@pytest.mark.parametrize(("events", "event", "fields", "code"), REFUSED)
def test_an_event_that_does_not_fit_is_refused_with_its_code(
    events: list[Any], event: TaskEvent, fields: dict[str, Any], code: ErrorCode
) -> None:
    assert why_not(after(*events), event, **fields) == code


def test_the_first_request_to_stop_counts() -> None:
    first = (E.CANCEL_REQUESTED, {"by": "ann", "deadline": 5})
    snapshot = after(E.STARTED, first, (E.CANCEL_REQUESTED, {"by": "bob", "deadline": 60}), E.CANCEL_ACCEPTED)
    assert snapshot.stop is not None
    assert (snapshot.stop.by, snapshot.stop.deadline, snapshot.stop.accepted) == ("ann", 6000, True)
    assert apply(snapshot, E.CANCELLED, TaskData(), 9000).by == "ann"


def test_a_retry_keeps_the_description_of_the_task_and_forgets_the_run() -> None:
    first = (E.STARTED, {"title": "Build", "kind": "ci", "heartbeat": 5, "timeout": 60})
    again = after(first, (E.PROGRESS, {"percent": 50}), (E.OUTPUT, {"lines": ["x"]}), (E.PROGRESS, {"attempt": 2}))
    assert snapshot_fields(again) == {
        "state": "running",
        "attempt": 2,
        "title": "Build",
        "kind": "ci",
        "heartbeat": 5,
        "timeout": 60,
        "created": 0,
        "started": 3000,
        "updated": 3000,
    }


RETRY = (E.RETRYING, {"error": "disk full", "delay": 8})


def test_a_failed_attempt_that_another_will_follow_is_not_the_end() -> None:
    first = (E.STARTED, {"title": "Build", "heartbeat": 5})
    waiting = after(first, (E.PROGRESS, {"percent": 50, "rate": 2.0, "eta": 25}), ASK, RETRY)
    assert (waiting.state, waiting.attempt, waiting.error) == (TaskState.RETRYING, 1, "disk full")
    assert (waiting.ended, waiting.retry, waiting.rate, waiting.eta) == (3000, 11_000, None, None)
    assert waiting.ask is not None
    assert not waiting.ask.open
    again = apply(waiting, E.STARTED, TaskData(), 11_000)
    assert (again.state, again.attempt, again.title) == (TaskState.RUNNING, 2, "Build")
    assert (again.error, again.ended, again.retry, again.percent) == (None, None, None, None)


@pytest.mark.parametrize("way", [[], [E.CREATED], [E.STARTED], [E.PAUSED], [ASK], [E.STARTED, E.STALLED], [RETRY]])
def test_an_attempt_may_fail_and_be_followed_by_another_whatever_its_state(way: list[Any]) -> None:
    assert after(*way, RETRY).state is TaskState.RETRYING


def test_between_two_attempts_nothing_is_reported_and_nothing_stalls() -> None:
    for event in (E.PROGRESS, E.OUTPUT, E.PAUSED, E.RESUMED, E.STALLED, E.HEARD):
        assert why_not(after(E.STARTED, RETRY), event) is ErrorCode.BAD_STATE, event
    assert apply(after(E.STARTED, RETRY), E.FAILED, TaskData(error="gave up"), 0).error == "gave up"


def test_a_task_that_is_asked_to_stop_stays_so_when_its_attempt_fails() -> None:
    asked = after(E.STARTED, (E.CANCEL_REQUESTED, {"by": "ann"}), RETRY)
    assert (asked.state, asked.before) == (TaskState.CANCELLING, TaskState.RETRYING)
    assert apply(asked, E.CANCEL_REFUSED, TaskData(), 0).state is TaskState.RETRYING
    assert apply(asked, E.STARTED, TaskData(), 0).attempt == 2


def test_an_announcement_that_comes_late_adds_what_is_not_known() -> None:
    said: dict[str, Any] = {"title": "Announced", "kind": "celery", "stage": "queue", "attempt": 1}
    late = (E.CREATED, said)
    known = after((E.STARTED, {"title": "Build"}), (E.PROGRESS, {"percent": 5, "stage": "compile"}), late)
    assert (known.state, known.title, known.kind, known.stage) == (TaskState.RUNNING, "Build", "celery", "compile")
    assert after(E.CREATED, late).title == "Announced"
    assert why_not(after(E.COMPLETED), E.CREATED, **said) is ErrorCode.TASK_ENDED


def test_the_end_closes_an_open_question() -> None:
    ask = after(ASK, TaskEvent.COMPLETED).ask
    assert ask is not None
    assert not ask.open


def test_a_task_that_never_began_has_no_start() -> None:
    assert after(E.CREATED, E.CANCEL_REQUESTED, E.CANCELLED).started is None
    assert after(E.CREATED, E.STARTED, E.CANCELLED).started == 1000


def test_percent_is_computed_from_done_and_total() -> None:
    counted = after((E.PROGRESS, {"done": 5, "total": 20}))
    assert counted.percent == 25
    assert apply(counted, E.PROGRESS, TaskData(total=10), 0).percent == 50
    assert apply(counted, E.PROGRESS, TaskData(done=30), 0).percent == 100
    assert apply(counted, E.PROGRESS, TaskData(message="..."), 0).percent == 25
    assert apply(counted, E.PROGRESS, TaskData(total=0), 0).percent is None
    assert apply(counted, E.PROGRESS, TaskData(percent=7), 0).done is None


def test_the_eta_counts_down_between_two_progress_events() -> None:
    told = after((E.PROGRESS, {"percent": 5, "eta": 60}), (E.OUTPUT, {"lines": ["x"]}))
    assert (told.eta, told.updated) == (59, 1000)


@pytest.mark.parametrize("end", [E.COMPLETED, E.FAILED])
def test_a_result_that_is_too_large_is_not_kept(end: TaskEvent) -> None:
    assert apply(Snapshot(), end, TaskData(result="x" * (MAX_RESULT_BYTES - 2)), 0).result is not None
    assert apply(Snapshot(), end, TaskData(result="x" * MAX_RESULT_BYTES), 0).result is None


def test_an_answer_that_is_too_large_counts_but_is_not_kept() -> None:
    snapshot = after(ASK, (E.ANSWERED, {"ask": "q", "by": "ann", "value": "x" * MAX_RESULT_BYTES}))
    assert snapshot.ask is not None
    assert (snapshot.ask.by, snapshot.ask.value) == ("ann", None)


def test_only_progress_gives_way() -> None:
    assert {event for event in TaskEvent if conflation_key(event) == CONFLATED} == {E.PROGRESS}
    assert {conflation_key(event) for event in TaskEvent} == {CONFLATED, None}


@pytest.mark.parametrize("codec", [Raw, msgspec.json.decode], ids=["json", "cbor"])
def test_the_keys_that_the_engine_adds_to_an_event_can_be_read_again(codec: Callable[[bytes], Any]) -> None:
    told = Envelope("pub", event=E.PROGRESS, data=codec(b'{"percent":50,"mine":[1]}'))
    snapshot = apply(Snapshot(), E.PROGRESS, data_of(told, E.PROGRESS), 0)
    told.data = with_data(told, {"state": snapshot.state, "attempt": 1, **progress_of(snapshot)})
    assert told.value == {"percent": 50, "mine": [1], "state": "running", "attempt": 1}
    assert apply(Snapshot(), E.PROGRESS, data_of(told, E.PROGRESS), 0) == snapshot


def test_orders_of_two_stops_and_an_end_agree_on_the_end() -> None:
    for order in permutations([E.CANCEL_REQUESTED, E.CANCEL_ACCEPTED, E.CANCELLED]):
        snapshot, _ = fold(after(E.STARTED), [Said(event, TaskData()) for event in order])
        assert snapshot.state is TaskState.CANCELLED


def test_the_ends_of_a_task_are_no_events_of_the_engine() -> None:
    assert set(LIVE) > ENGINE_EVENTS


def test_a_task_that_completes_at_2_of_3_shows_that_and_one_that_does_not_count_shows_everything() -> None:
    counted = apply(apply(Snapshot(), E.STARTED, TaskData(), 0), E.PROGRESS, TaskData(done=2, total=3), 0)
    ended = apply(counted, E.COMPLETED, TaskData(), 0)
    assert (ended.done, ended.total, round(ended.percent or 0)) == (2, 3, 67)
    assert apply(apply(counted, E.PROGRESS, TaskData(done=3), 0), E.COMPLETED, TaskData(), 0).percent == 100
    in_percent = apply(apply(Snapshot(), E.STARTED, TaskData(), 0), E.PROGRESS, TaskData(percent=40), 0)
    assert apply(in_percent, E.COMPLETED, TaskData(), 0).percent == 100
