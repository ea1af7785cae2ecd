"""What each event leaves in the snapshot besides the state, and what is said of an event that does not fit."""

from typing import Any

import pytest
from msgspec.structs import replace

from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import AskKind, TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import TaskState

E = TaskEvent
Step = TaskEvent | tuple[TaskEvent, dict[str, Any]]

QUESTION = (E.ASKED, {"ask": "q"})
ANSWER = (E.ANSWERED, {"ask": "q", "by": "ann"})
DELIVERED = (E.DELIVERED, {"ask": "q"})


def after(*steps: Step) -> Snapshot:
    """The snapshot after events that all fit, the first at 1 s, and each a second after the one before it."""
    snapshot = Snapshot()
    for number, step in enumerate(steps, 1):
        event, fields = step if isinstance(step, tuple) else (step, {})
        snapshot = apply(snapshot, event, TaskData(**fields), 1000 * number)
    return snapshot


# --- attempts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [E.CREATED, E.STARTED])
def test_a_task_that_begins_again_after_its_end_is_in_the_next_attempt(event: TaskEvent) -> None:
    assert after(E.STARTED, E.COMPLETED, event).attempt == 2
    assert after((E.STARTED, {"attempt": 7}), E.FAILED, event).attempt == 8


def test_a_start_of_a_running_task_is_of_its_attempt() -> None:
    assert after(E.STARTED, E.STARTED).attempt == 1


# --- the application's own fields ---------------------------------------------------------------------------------


def test_the_newest_fields_of_a_task_are_kept_over_its_attempts() -> None:  # S5-12
    lease, sale = {"contract_type": "lease"}, {"contract_type": "sale", "role": "buyer"}
    assert after((E.CREATED, {"fields": lease}), E.STARTED).fields == lease
    assert after((E.CREATED, {"fields": lease}), (E.STARTED, {"fields": sale}), E.FAILED, E.STARTED).fields == sale


@pytest.mark.parametrize("unfit", ["lease", ["lease"], {"contract_type": "x" * 4096}])
def test_fields_that_are_no_map_or_too_large_are_left_out_and_the_event_counts(unfit: Any) -> None:
    snapshot = after((E.CREATED, {"fields": {"role": "buyer"}}), (E.STARTED, {"fields": unfit, "title": "t"}))
    assert (snapshot.fields, snapshot.title) == ({"role": "buyer"}, "t")


# --- output -------------------------------------------------------------------------------------------------------


def test_lines_are_counted_and_so_are_those_that_the_producer_dropped() -> None:
    snapshot = after((E.OUTPUT, {"lines": ["a", "b"], "dropped": 3}), (E.OUTPUT, {"lines": ["c"], "dropped": 1}))
    assert (snapshot.lines, snapshot.dropped) == (3, 4)
    assert after((E.OUTPUT, {"lines": ["a"]}), E.OUTPUT).dropped == 0


def test_a_numbered_batch_of_lines_says_itself_where_the_output_stands() -> None:
    assert after((E.OUTPUT, {"lines": ["a"]}), (E.OUTPUT, {"lines": ["x", "y"], "first": 10})).lines == 12


# --- questions ----------------------------------------------------------------------------------------------------


def test_a_question_is_kept_as_it_was_asked() -> None:
    fields = {"ask": "q", "text": "which?", "kind": "input", "options": ["blue", "green"], "deadline": 30}
    assert after((E.ASKED, fields)).ask == Ask("q", "which?", AskKind.INPUT, ["blue", "green"], 31_000)


@pytest.mark.parametrize("kind", [None, "approve", "a kind that comes later"])
def test_a_question_of_any_other_kind_is_one_to_approve(kind: str | None) -> None:
    assert after((E.ASKED, {"ask": "q", "kind": kind})).ask == Ask("q", None, AskKind.APPROVE, None, None)


def test_the_answer_that_won_is_kept_with_its_call() -> None:
    ask = after(QUESTION, (E.ANSWERED, {"ask": "q", "by": "ann", "value": 7, "call": "c1"})).ask
    assert ask == Ask("q", by="ann", value=7, call="c1")
    nameless = after(QUESTION, (E.ANSWERED, {"ask": "q"})).ask
    assert nameless is not None
    assert nameless.by == "somebody"


def test_input_that_answers_no_question_leaves_the_open_one_open() -> None:
    ask = after(QUESTION, (E.ANSWERED, {"by": "ann", "value": 7})).ask
    assert ask == Ask("q")


@pytest.mark.parametrize("end", [E.RESUMED, E.COMPLETED])
def test_what_closes_an_open_question_leaves_an_answered_one_answered(end: TaskEvent) -> None:
    assert after(QUESTION, end).ask == Ask("q", expired=True)
    assert after(QUESTION, ANSWER, end).ask == Ask("q", by="ann")


# --- stops and ends -----------------------------------------------------------------------------------------------


def test_a_producer_may_agree_to_a_stop_that_it_was_never_asked_for() -> None:
    accepted = (E.CANCEL_ACCEPTED, {"by": "ann", "deadline": 5})
    assert after(E.STARTED, accepted).stop == Stop("ann", 7000, accepted=True)


def test_a_completed_task_keeps_its_last_words() -> None:
    assert after((E.PROGRESS, {"message": "packing"}), E.COMPLETED).message == "packing"
    assert after((E.PROGRESS, {"message": "packing"}), (E.COMPLETED, {"message": "done"})).message == "done"


def test_a_task_that_failed_says_why_in_its_error_or_else_its_message() -> None:
    assert after((E.FAILED, {"error": "exit 1", "message": "see the log"})).error == "exit 1"
    assert after((E.FAILED, {"message": "see the log"})).error == "see the log"
    assert after((E.FAILED, {"error": "exit 1"})).error == "exit 1"


# --- what does not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "event", "fields", "text"),
    [
        ([(E.STARTED, {"attempt": 3})], E.OUTPUT, {"attempt": 2}, "^attempt 2 was superseded by attempt 3$"),
        (
            [E.STARTED, E.CANCEL_REQUESTED, E.CANCEL_ACCEPTED],
            E.CANCEL_REFUSED,
            {},
            "^the producer has already agreed to stop$",
        ),
        ([QUESTION], E.ANSWERED, {"ask": "other"}, "^the task does not ask 'other'$"),
        ([QUESTION, ANSWER], E.ANSWERED, {"ask": "q"}, "^already answered by ann$"),
        ([QUESTION, (E.ASK_EXPIRED, {"ask": "q"})], E.ANSWERED, {"ask": "q"}, "the question has expired"),
        (
            [E.STARTED, E.COMPLETED],
            E.PROGRESS,
            {},
            r"^task_progress after the end: attempt 1 has ended \(completed\); a retry begins with task_started$",
        ),
        ([E.STARTED], E.HEARD, {}, "^task_heard does not fit a task that is running$"),
    ],
)
def test_a_refusal_says_what_stands_against_it(
    steps: list[Step], event: TaskEvent, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(MessageError, match=text):
        apply(after(*steps), event, TaskData(**fields), 9000)


def test_a_question_may_be_asked_again_under_its_name_once_its_answer_was_delivered() -> None:
    assert after(QUESTION, ANSWER, DELIVERED, QUESTION).state is TaskState.WAITING_INPUT


@pytest.mark.parametrize("suspended", [[], [E.STALLED], [E.CANCEL_REQUESTED]])
def test_a_question_that_is_asked_again_before_its_answer_was_delivered_keeps_the_answer(suspended: list[Step]) -> None:
    answered = after(QUESTION, ANSWER, *suspended)
    again = apply(answered, E.ASKED, TaskData(ask="q"), 9000)
    assert answered.ask is not None
    assert again.ask == replace(answered.ask, again=1)
    assert TaskState.WAITING_INPUT not in (again.state, again.before)


def test_who_asks_again_is_not_served_by_the_delivery_to_who_asked_before() -> None:
    asked_again = after(QUESTION, ANSWER, QUESTION)
    with pytest.raises(MessageError, match="asked again"):
        apply(asked_again, E.DELIVERED, TaskData(ask="q"), 9000)
    delivered = apply(asked_again, E.DELIVERED, TaskData(ask="q", again=1), 9000)
    assert delivered.ask is not None
    assert delivered.ask.delivered


def test_an_answer_is_delivered_once_and_only_to_its_question() -> None:
    delivered = after(QUESTION, ANSWER, DELIVERED)
    assert delivered.ask is not None
    assert (delivered.state, delivered.ask.delivered) == (TaskState.RUNNING, True)
    for steps, ask in (([QUESTION, ANSWER, DELIVERED], "q"), ([QUESTION], "q"), ([QUESTION, ANSWER], "other")):
        with pytest.raises(MessageError):
            apply(after(*steps), E.DELIVERED, TaskData(ask=ask), 9000)
