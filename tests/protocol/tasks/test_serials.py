"""Which events are taken: each once, however often and in whatever order they are stored."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.events import TaskData, TaskEvent, data_of
from fanline.protocol.tasks.fold import apply, attempt_of
from fanline.protocol.tasks.serials import (
    MAX_PRODUCERS,
    WINDOW,
    SerialNumber,
    Serials,
    TakenBeforeError,
    is_ahead,
    with_serial,
)
from fanline.protocol.tasks.snapshot import Snapshot, snapshot_fields
from tests.protocol.strategies import refusal

E = TaskEvent


def taken(*numbers: int, producer: str = "p", known: tuple[Serials, ...] = ()) -> tuple[Serials, ...]:
    """What is known after output with these numbers; all of them must be taken."""
    for number in numbers:
        known = with_serial(known, (producer, number), is_output=True)
    return known


def take(snapshot: Snapshot, event: TaskEvent, serial: SerialNumber | None, **data: object) -> Snapshot:
    return apply(snapshot, event, TaskData(serial=serial, **data), 0)  # type: ignore[arg-type]


def test_numbers_in_order_leave_nothing_but_the_highest() -> None:
    assert taken(*range(1, 1000)) == (Serials("p", 999),)


def test_what_is_skipped_is_missing_until_it_comes() -> None:
    known = taken(1, 4, 6)
    assert known == (Serials("p", 6, (2, 3, 5)),)
    assert taken(3, known=known) == (Serials("p", 6, (2, 5)),)
    assert taken(5, 2, 3, known=known) == (Serials("p", 6),)


@pytest.mark.parametrize("number", [1, 4, 6])
@pytest.mark.parametrize("is_output", [True, False])
def test_what_was_taken_is_not_taken_again(number: int, is_output: bool) -> None:
    with pytest.raises(TakenBeforeError):
        with_serial(taken(1, 4, 6), ("p", number), is_output=is_output)


def test_only_output_may_come_late() -> None:
    error = refusal(lambda serial: with_serial(taken(1, 4), serial, is_output=False), ("p", 3))
    assert error is not None
    assert (error.code, str(error)) == (ErrorCode.BAD_STATE, "event 3 came after event 4, which is newer")
    assert not isinstance(error, TakenBeforeError)


def test_what_is_older_than_the_window_counts_as_taken() -> None:
    known = taken(1, 2 + WINDOW)
    assert known[0].missing == tuple(range(2, 2 + WINDOW))
    known = taken(3 + WINDOW, known=known)
    assert known[0].missing[0] == 3
    with pytest.raises(TakenBeforeError):
        taken(2, known=known)


def test_after_a_leap_that_is_longer_than_the_window_nothing_is_missing() -> None:
    assert taken(1, 3, 5000) == (Serials("p", 5000),)
    assert taken(5000) == (Serials("p", 5000),)


def test_several_producers_have_numbers_of_their_own_and_the_newest_are_remembered() -> None:
    known = taken(1, 2, 3, producer="first")
    for number in range(MAX_PRODUCERS - 1):
        known = taken(1, producer=f"p{number}", known=known)
    known = taken(4, producer="first", known=known)
    assert known[-1] == Serials("first", 4)
    known = taken(1, producer="another", known=known)
    assert len(known) == MAX_PRODUCERS
    assert "p0" not in {each.producer for each in known}
    with pytest.raises(TakenBeforeError):
        taken(4, producer="first", known=known)


def test_what_is_ahead_of_all_that_was_taken() -> None:
    known = taken(1, 3)
    assert [is_ahead(known, serial) for serial in (None, ("q", 1), ("p", 4), ("p", 3), ("p", 2))] == [
        True,
        True,
        True,
        False,
        False,
    ]


@given(st.lists(st.integers(1, 3 * WINDOW), max_size=300))
def test_no_number_is_ever_taken_twice(numbers: list[int]) -> None:
    known: tuple[Serials, ...] = ()
    once = set[int]()
    for number in numbers:
        try:
            known = with_serial(known, ("p", number), is_output=True)
        except TakenBeforeError:
            continue
        assert number not in once
        once.add(number)
        assert known[0].last == max(once)
        assert len(known[0].missing) <= WINDOW
        assert all(a < b for a, b in pairwise(known[0].missing))
        assert not once & set(known[0].missing)


@given(st.lists(st.integers(0, WINDOW), min_size=1, max_size=400))
def test_every_number_that_is_late_by_less_than_the_window_is_taken(delays: list[int]) -> None:
    order = sorted(range(len(delays)), key=lambda index: (index + delays[index], index))
    assert taken(*(index + 1 for index in order)) == (Serials("p", len(delays)),)


# --- in the fold ----------------------------------------------------------------------------------------------------


def test_events_without_a_serial_number_count_each_time() -> None:
    snapshot = take(take(Snapshot(), E.OUTPUT, None, lines=["a"]), E.OUTPUT, None, lines=["a"])
    assert (snapshot.lines, snapshot.serials) == (2, ())


def test_the_snapshot_knows_what_was_taken_and_says_it_in_json() -> None:
    snapshot = take(take(Snapshot(), E.STARTED, ("p", 1)), E.PROGRESS, ("p", 3), percent=5)
    fields = msgspec.json.decode(msgspec.json.encode(snapshot_fields(snapshot)))
    assert fields["serials"] == [{"producer": "p", "last": 3, "missing": [2]}]
    assert msgspec.convert(fields, Snapshot) == snapshot


@pytest.mark.parametrize("event", [E.STARTED, E.OUTPUT, E.PROGRESS, E.COMPLETED])
def test_what_is_stored_again_after_the_end_is_no_mistake(event: TaskEvent) -> None:
    snapshot = take(take(Snapshot(), event, ("p", 1)), E.COMPLETED, ("p", 2)) if event is not E.COMPLETED else None
    snapshot = snapshot or take(Snapshot(), E.COMPLETED, ("p", 1))
    with pytest.raises(TakenBeforeError):
        take(snapshot, event, ("p", 1))


def test_output_that_comes_after_the_end_for_the_first_time_is_refused() -> None:
    ended = take(take(Snapshot(), E.STARTED, ("p", 1)), E.COMPLETED, ("p", 3))
    error = refusal(lambda serial: take(ended, E.OUTPUT, serial, lines=["x"]), ("p", 2))
    assert error is not None
    assert error.code is ErrorCode.TASK_ENDED


def test_a_start_that_is_stored_again_after_the_end_begins_no_attempt() -> None:
    ended = take(take(Snapshot(), E.STARTED, ("p", 1)), E.COMPLETED, ("p", 2))
    with pytest.raises(TakenBeforeError):
        take(ended, E.STARTED, ("p", 1))
    assert attempt_of(ended, E.STARTED, TaskData(serial=("q", 1))) == 2
    assert attempt_of(ended, E.STARTED, TaskData(serial=("p", 3))) == 2


def test_an_attempt_begins_with_no_numbers_and_a_restarted_producer_goes_on_in_its_attempt() -> None:
    snapshot = take(take(Snapshot(), E.STARTED, ("p", 1)), E.OUTPUT, ("p", 2), lines=["a"])
    again = take(snapshot, E.OUTPUT, ("q", 1), lines=["b"], attempt=1)
    assert again.lines == 2
    assert take(again, E.STARTED, ("r", 1), attempt=2).serials == (Serials("r", 1),)


def test_an_event_that_is_refused_for_another_reason_takes_no_number() -> None:
    started = take(Snapshot(), E.STARTED, ("p", 1))
    with pytest.raises(MessageError):
        take(started, E.HEARD, ("p", 2))
    assert take(started, E.PAUSED, ("p", 3)).serials == (Serials("p", 3, (2,)),)


@pytest.mark.parametrize(
    "serial", ["p", ["p"], ["p", 0], ["", 1], ["x" * 65, 1], ["p", 1, 2], ["p", 2**53 + 1], [1, 1]]
)
def test_a_serial_number_is_a_name_and_a_number_from_1(serial: object) -> None:
    error = refusal(
        lambda data: data_of(Envelope(event=E.OUTPUT, data=data), E.OUTPUT),
        msgspec.Raw(msgspec.json.encode({"serial": serial})),
    )
    assert error is not None
    assert error.code is ErrorCode.BAD_MESSAGE
    assert "serial" in str(error)


def test_a_producer_whose_id_has_control_characters_is_refused() -> None:
    error = refusal(lambda serial: take(Snapshot(), E.OUTPUT, serial), ("\x1b[31m", 1))
    assert error is not None
    assert error.code is ErrorCode.BAD_MESSAGE
