"""A task folded from its channel: what viewers get of each event, checkpoints, the log tail."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from fanline.engine.bus.stored import Epoch
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.output_tail import MAX_CHARACTERS, OutputTail
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.commands import MAX_LINES
from fanline.protocol.tasks.events import MAX_LINE, Stream, TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot

CHANNEL = "task:build"


def event(kind: str, time: int = 0, **data: object) -> Envelope:
    return Envelope("pub", CHANNEL, event=kind, data=Raw(msgspec.json.encode(data)), time=time)


class Fed:
    """A log that is fed one event after the other, and what came out of it."""

    def __init__(self) -> None:
        self.refused: list[MessageError] = []
        self.log = TaskFold(CHANNEL, lambda channel, error: self.refused.append(error))

    def feed(self, envelope: Envelope) -> dict[str, object] | None:
        """The data that viewers get; None if they get nothing."""
        edited = self.log.take(envelope, self.log.offset + 1)
        data: dict[str, object] | None = None if edited is None else edited.value
        return data


def test_progress_tells_viewers_all_that_is_known_and_gives_way_to_newer_progress() -> None:
    fed = Fed()
    fed.feed(event("task_progress", 0, done=0, total=10, stage="compile"))
    edited = fed.log.take(event("task_progress", 2000, done=2, mine="kept"), 2)
    assert edited is not None
    assert edited.key == "progress"
    assert edited.value == {
        "done": 2,
        "mine": "kept",
        "state": "running",
        "attempt": 1,
        "percent": 20.0,
        "total": 10,
        "stage": "compile",
        "rate": 1.0,
        "eta": 8.0,
    }


def test_progress_that_moves_the_task_never_gives_way() -> None:
    fed = Fed()
    fed.feed(event("task_progress", 0, percent=1))
    fed.feed(event("task_stalled"))
    for offset, (data, key) in enumerate([({"percent": 2}, None), ({"percent": 3}, "progress")]):
        edited = fed.log.take(event("task_progress", 0, **data), 10 + offset)
        assert edited is not None
        assert edited.key == key
    edited = fed.log.take(event("task_progress", 0, percent=1, attempt=2), 20)
    assert edited is not None
    assert edited.key is None


def test_the_eta_counts_down_with_progress_that_is_only_a_message() -> None:
    fed = Fed()
    for second in range(11):
        fed.feed(event("task_progress", second * 1000, percent=second))
    told = fed.feed(event("task_progress", 20_000, message="still at it"))
    assert told is not None
    assert told["eta"] == pytest.approx(80)


def test_a_pause_neither_slows_the_task_down_nor_lets_its_eta_run() -> None:
    fed = Fed()
    for second in range(11):
        fed.feed(event("task_progress", second * 1000, percent=second))
    fed.feed(event("task_paused", 10_000))
    assert fed.log.snapshot.eta is None
    fed.feed(event("task_resumed", 100_000))
    told = fed.feed(event("task_progress", 101_000, percent=11))
    assert told is not None
    assert told["rate"] == pytest.approx(1)
    assert told["eta"] == pytest.approx(89)


def test_a_producer_has_no_say_in_rate_eta_and_line_numbers() -> None:
    fed = Fed()
    data = fed.feed(event("task_progress", 0, percent=1, rate=99, eta=1))
    assert data is not None
    assert (data["rate"], data["eta"]) == (None, None)
    assert fed.feed(event("task_output", 0, lines=["a", "b"], first=77)) == {
        "lines": ["a", "b"],
        "first": 0,
        "state": "running",
        "attempt": 1,
    }


def test_only_progress_has_a_conflation_key_whatever_the_producer_says() -> None:
    fed = Fed()
    output = event("task_output", 0, lines=["a"])
    output.key = "x"
    edited = fed.log.take(output, 1)
    assert edited is not None
    assert edited.key is None


def test_a_message_that_is_no_task_event_passes_untouched() -> None:
    fed = Fed()
    envelope = event("agent_spawned", 0, percent=1000)
    envelope.key = "mine"
    assert fed.log.take(envelope, 1) is envelope
    assert fed.log.snapshot == Snapshot()


@pytest.mark.parametrize(
    "envelope",
    [
        event("task_progress", percent=101),
        event("task_progress", percent="much"),
        Envelope("pub", CHANNEL, event="task_progress", data=[1]),
        event("task_output", lines=[1, None]),
        event("task_started", attempt=0),
    ],
)
def test_data_that_says_nothing_plain_passes_through_counted_and_changes_nothing(envelope: Envelope) -> None:
    fed = Fed()
    fed.feed(event("task_started", attempt=2))
    before = fed.log.snapshot
    assert fed.feed(envelope) == envelope.value
    assert [error.code for error in fed.refused] == [ErrorCode.BAD_MESSAGE]
    assert fed.log.snapshot == before


@pytest.mark.parametrize(
    ("present", "envelope", "code"),
    [
        ("task_started", event("task_progress", attempt=1, percent=5), ErrorCode.STALE_ATTEMPT),
        ("task_retrying", event("task_progress", percent=5), ErrorCode.BAD_STATE),
    ],
)
def test_what_does_not_fit_reaches_nobody_and_changes_nothing(
    present: str, envelope: Envelope, code: ErrorCode
) -> None:
    fed = Fed()
    fed.feed(event(present, attempt=2))
    before = fed.log.snapshot
    assert fed.feed(envelope) is None
    assert [error.code for error in fed.refused] == [code]
    assert fed.log.snapshot == before


def test_what_the_engine_stored_too_late_is_left_out_and_is_nobodys_mistake() -> None:
    fed = Fed()
    fed.feed(event("task_completed"))
    for late in (event("task_stalled"), event("task_cancel_accepted"), event("task_input", ask="q")):
        assert fed.feed(late) is None
    assert fed.refused == []


def test_nothing_comes_after_the_end_but_another_attempt() -> None:
    fed = Fed()
    fed.feed(event("task_completed", 5, result={"ok": True}))
    for late in (event("task_progress", percent=5), event("task_failed"), event("task_output", lines=["x"])):
        assert fed.feed(late) is None
    assert {error.code for error in fed.refused} == {ErrorCode.TASK_ENDED}
    assert fed.feed(event("task_started", 9, attempt=2)) == {"attempt": 2, "state": "running"}
    assert fed.log.snapshot.result is None


def test_a_start_after_the_end_begins_the_next_attempt_unless_it_names_an_old_one() -> None:
    fed = Fed()
    fed.feed(event("task_completed", 5, attempt=3))
    assert fed.feed(event("task_started", attempt=3)) is None
    assert fed.feed(event("task_started", attempt=2)) is None
    assert [error.code for error in fed.refused] == [ErrorCode.TASK_ENDED, ErrorCode.STALE_ATTEMPT]
    assert fed.feed(event("task_started", 6)) == {"attempt": 4, "state": "running"}
    assert fed.feed(event("task_started", 7)) == {"attempt": 4, "state": "running"}


def test_a_new_attempt_numbers_its_lines_from_zero_and_the_old_ones_stay_told_apart() -> None:
    fed = Fed()
    fed.feed(event("task_output", 0, lines=["old 0", "old 1"]))
    fed.feed(event("task_output", 0, lines=["new 0"], attempt=2, stream="stderr"))
    assert [msgspec.to_builtins(batch) for batch in fed.log.output.newest(2)] == [
        {"lines": ["old 1"], "first": 1, "attempt": 1},
        {"lines": ["new 0"], "first": 0, "attempt": 2, "stream": "stderr"},
    ]


EVENTS = st.lists(
    st.one_of(
        st.builds(lambda p: ("task_progress", {"percent": p}), st.integers(0, 100)),
        st.builds(lambda n: ("task_progress", {"done": n, "total": 50}), st.integers(0, 50)),
        st.builds(lambda t: ("task_output", {"lines": t}), st.lists(st.text(max_size=5), max_size=4)),
        st.sampled_from(
            [
                ("task_started", {"attempt": 2}),
                ("task_paused", {}),
                ("task_resumed", {}),
                ("task_stalled", {}),
                ("task_failed", {"error": "x"}),
                ("task_cancel_requested", {"by": "ann", "deadline": 5}),
                ("task_progress", {"percent": 101}),
                ("else", {"a": 1}),
            ]
        ),
    ),
    max_size=40,
)


@given(EVENTS, st.integers(0, 40), st.sampled_from(["same", "other"]))
def test_who_begins_with_a_checkpoint_comes_to_the_same_as_who_was_there_from_the_start(
    events: list[tuple[str, dict[str, object]]], cut: int, epoch: str
) -> None:
    whole, part, resumed = Fed(), Fed(), Fed()
    for number, (kind, data) in enumerate(events):
        if number == cut:
            resumed.log.load(part.log.record(Epoch("same")), Epoch("same"))
        for fed in (whole, part) if number < cut else (whole, resumed):
            fed.log.take(event(kind, number * 700, **data), number + 1)
    if cut < len(events):
        assert resumed.log.record(Epoch(epoch)) == whole.log.record(Epoch(epoch))


def test_what_a_checkpoint_has_told_of_is_not_folded_twice() -> None:
    first, second = Fed(), Fed()
    lines = [event("task_output", 0, lines=[str(number)]) for number in range(5)]
    for number, line in enumerate(lines):
        first.log.take(line, number + 1)
    second.log.load(first.log.record(Epoch("e")), Epoch("e"))
    for number, line in enumerate(lines):
        second.log.take(line, number + 1)
    assert second.log.snapshot.lines == 5


def test_what_was_stored_twice_reaches_nobody_and_is_nobodys_mistake() -> None:
    fed = Fed()
    line = event("task_output", 0, lines=["a"], serial=["p", 1])
    assert fed.feed(line) is not None
    assert fed.feed(line) is None
    assert fed.feed(event("task_completed", 1, serial=["p", 3])) is not None
    assert fed.feed(line) is None
    assert (fed.log.snapshot.lines, fed.refused) == (1, [])
    assert fed.feed(event("task_progress", 1, serial=["p", 2])) is None  # too late, for the first time
    assert [error.code for error in fed.refused] == [ErrorCode.BAD_STATE]


def test_a_fold_that_begins_with_a_record_knows_what_was_taken() -> None:
    first, second = Fed(), Fed()
    for number in (1, 3):
        first.feed(event("task_output", 0, lines=[str(number)], serial=["p", number]))
    second.log.load(first.log.record(Epoch("e")), Epoch("e"))
    assert [
        second.feed(event("task_output", 0, lines=["x"], serial=["p", number])) is None for number in (3, 2, 2)
    ] == [
        True,
        False,
        True,
    ]
    assert second.log.snapshot.lines == 3


def test_an_old_checkpoint_does_not_take_a_newer_log_back() -> None:
    log = Fed().log
    log.take(event("task_progress", 0, percent=10), 1)
    old = log.record(Epoch("e"))
    log.take(event("task_progress", 0, percent=20), 2)
    log.load(old, Epoch("e"))
    assert (log.offset, log.snapshot.percent) == (2, 20)


def test_a_checkpoint_that_knows_of_fewer_lines_gives_no_line_a_number_twice() -> None:
    ours, keeper = Fed().log, Fed().log
    for number in range(5):
        line = event("task_output", 0, lines=[f"line {number}"])
        ours.take(line, number + 1)
        if number != 2:
            keeper.take(line, number + 1)
    keeper.take(event("task_progress", 0, percent=7), 9)
    ours.load(keeper.record(Epoch("e")), Epoch("e"))
    assert (ours.offset, ours.snapshot.percent, ours.snapshot.lines) == (9, 7, 5)
    assert [line for batch in ours.output.newest(9) for line in batch.lines] == [f"line {n}" for n in range(5)]


def test_a_checkpoint_of_another_epoch_says_how_the_task_was_and_no_offset() -> None:
    log, other = Fed().log, Fed().log
    log.take(event("task_progress", 0, percent=10), 9)
    other.load(log.record(Epoch("old")), Epoch("new"))
    assert (other.offset, other.snapshot.percent) == (0, 10)


def test_a_broken_checkpoint_is_left_aside() -> None:
    log = Fed().log
    for value in (b"", b"[]", b"{}", b'{"snapshot":{"state":"odd"}}', b"\xff"):
        log.load(value, Epoch("e"))
    assert log.snapshot == Snapshot()


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 600), st.sampled_from(Stream)), max_size=40))
def test_a_log_tail_is_the_newest_lines_within_its_bounds(batches: list[tuple[int, int, Stream]]) -> None:
    tail = OutputTail()
    every: list[str] = []
    for count, width, stream in batches:
        lines = [f"{len(every) + index}".ljust(width, "-") for index in range(count)]
        tail.append(lines, len(every), 1, stream)
        every += lines
    kept = [line for batch in tail.newest(10**6) for line in batch.lines]
    assert kept == every[len(every) - len(kept) :]
    assert len(kept) <= MAX_LINES
    assert sum(map(len, kept)) <= MAX_CHARACTERS
    assert len(kept) == len(every) or len(kept) >= min(MAX_LINES, MAX_CHARACTERS // 600 - 1)
    for batch in tail.newest(7):
        assert batch.lines == every[batch.first : batch.first + len(batch.lines)]
    assert [line for batch in tail.newest(7) for line in batch.lines] == kept[-7:]


def test_a_line_without_end_is_cut_in_the_tail() -> None:
    tail = OutputTail()
    tail.append(["x" * 10_000_000], 0, 1, Stream.STDOUT)
    assert [len(line) for batch in tail.newest(1) for line in batch.lines] == [MAX_LINE]


def test_a_snapshot_message_is_the_snapshot_with_as_many_lines_as_were_asked_for() -> None:
    fed = Fed()
    fed.feed(event("task_started", 1, title="Build"))
    fed.feed(event("task_output", 2, lines=["a", "b", "c"]))
    frame = fed.log.snapshot_message(2, 2)
    assert (frame.event, frame.offset) == (TaskEvent.SNAPSHOT, 2)
    assert frame.value["snapshot"]["title"] == "Build"
    assert frame.value["output"] == [{"lines": ["b", "c"], "first": 1, "attempt": 1}]
