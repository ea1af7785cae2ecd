"""The buffer of unsent events: by example, and over random histories."""

from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.producer.exporter.pending_publish import fitting
from fanline.producer.run.buffer import (
    EVENT_BYTES,
    EVENT_LINES,
    FLUSH_SECONDS,
    MAX_BYTES,
    MAX_LINES,
    PROGRESS_SECONDS,
    BufferedEvent,
    TaskBuffer,
)
from fanline.producer.values.output_lines import lines_of
from fanline.protocol.tasks.events import MAX_LINE, Stream, TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot

ROOM = 1_000_000
LATER = 1e9


def _events(events: list[BufferedEvent]) -> list[str]:
    return [event.event.removeprefix("task_") for event in events]


def test_newer_progress_is_merged_over_older_progress() -> None:
    buffer = TaskBuffer()
    buffer.add_progress({"percent": 1, "stage": "compile"}, 0.0)
    buffer.add_progress({"percent": 2, "message": "b.c"}, 0.1)
    assert buffer.take(0.2, ROOM) == [
        BufferedEvent(TaskEvent.PROGRESS, {"percent": 2, "stage": "compile", "message": "b.c"}, 0.1)
    ]


def test_progress_is_sent_at_once_and_then_twenty_times_a_second() -> None:
    buffer, sent = TaskBuffer(), []
    for tick in range(1000):
        buffer.add_progress({"percent": tick / 10}, tick / 1000)
        sent += [event.time for event in buffer.take(tick / 1000, ROOM)]
    assert sent[0] == 0.0
    assert len(sent) == 20
    assert all(b - a >= PROGRESS_SECONDS - 1e-9 for a, b in pairwise(sent))


def test_progress_is_not_moved_past_a_state_event() -> None:
    buffer = TaskBuffer()
    buffer.add_progress({"percent": 1}, 0)
    buffer.add_state(TaskEvent.PAUSED, {}, 0)
    buffer.add_progress({"percent": 2}, 0)
    assert _events(buffer.take(0, ROOM)) == ["progress", "paused"]
    assert _events(buffer.take(PROGRESS_SECONDS, ROOM)) == ["progress"]


def test_lines_are_collected_until_they_are_old_or_the_event_is_full_or_something_else_happens() -> None:
    buffer = TaskBuffer()
    buffer.add_output(["a"], Stream.STDOUT, 0.0)
    assert buffer.due == FLUSH_SECONDS
    assert buffer.take(FLUSH_SECONDS / 2, ROOM) == []
    buffer.add_output(["b"], Stream.STDOUT, FLUSH_SECONDS / 2)
    assert buffer.take(FLUSH_SECONDS, ROOM)[0].data == {"lines": ["a", "b"], "stream": "stdout"}
    buffer.add_output(["x"] * EVENT_LINES, Stream.STDOUT, 1.0)
    assert buffer.due <= 1.0 + FLUSH_SECONDS
    buffer.add_output(["e"], Stream.STDERR, 1.0)
    assert [event.data["stream"] for event in buffer.take(1.0, ROOM)] == ["stdout"]
    buffer.add_state(TaskEvent.COMPLETED, {}, 1.0)
    assert _events(buffer.take(1.0, ROOM)) == ["output", "completed"]
    assert buffer.due == float("inf")


def test_an_output_event_is_limited_in_lines_and_bytes() -> None:
    buffer = TaskBuffer()
    buffer.add_output(["x"] * (EVENT_LINES + 1), Stream.STDOUT, 0)
    buffer.add_output(["y" * (EVENT_BYTES // 2), "z" * (EVENT_BYTES // 2)], Stream.STDOUT, 0)
    assert [len(event.data["lines"]) for event in buffer.take(LATER, ROOM)] == [EVENT_LINES, 2, 1]


def test_when_there_are_too_many_lines_the_oldest_are_dropped_and_the_next_event_says_so() -> None:
    buffer = TaskBuffer()
    buffer.add_state(TaskEvent.STARTED, {}, 0)
    for number in range(MAX_LINES + 5):
        buffer.add_output([str(number)], Stream.STDOUT, 0)
    assert buffer.dropped == 5
    started, first, *rest = buffer.take(LATER, ROOM)
    assert started.event is TaskEvent.STARTED
    assert (first.data["lines"][0], first.data["dropped"]) == ("5", 5)
    assert not any("dropped" in event.data for event in rest)
    assert rest[-1].data["lines"][-1] == str(MAX_LINES + 4)


def test_one_call_with_too_many_lines_keeps_the_newest() -> None:
    buffer = TaskBuffer()
    buffer.add_output(["old"] * 3 + ["new"] * MAX_LINES, Stream.STDOUT, 0)
    lines = [line for event in buffer.take(LATER, ROOM) for line in event.data["lines"]]
    assert lines == ["new"] * MAX_LINES
    assert buffer.dropped == 3


def test_the_buffer_is_bounded_in_bytes_too() -> None:
    buffer = TaskBuffer()
    line = "ü" * MAX_LINE
    for _ in range(MAX_BYTES // MAX_LINE):
        buffer.add_output([line], Stream.STDOUT, 0)
    lines = [line for event in buffer.take(LATER, ROOM) for line in event.data["lines"]]
    assert len(lines) == MAX_BYTES // (2 * MAX_LINE)
    assert buffer.dropped == len(lines)


def test_what_is_discarded_is_counted() -> None:
    buffer = TaskBuffer()
    buffer.add_state(TaskEvent.STARTED, {}, 0)
    buffer.add_progress({"percent": 1}, 0)
    buffer.add_output(["a", "b"], Stream.STDOUT, 0)
    assert _events(buffer.discard()) == ["started", "progress", "output"]
    assert buffer.dropped == 2
    assert buffer.take(LATER, ROOM) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\nb", ["a", "", "b"]),
        ("a\r\nb\rc", ["a", "b", "c"]),
        ("tab\there", ["tab\there"]),
        ("nul\x00 esc\x1b[1m del\x7f \ud800", ["nul\ufffd esc\ufffd[1m del\ufffd \ufffd"]),
        (b"\xff\xfeabc\xc3\xbc\n\x00", ["\ufffd\ufffdabcü", "\ufffd"]),
    ],
)
def test_any_output_becomes_displayable_lines(text: str | bytes, lines: list[str]) -> None:
    assert lines_of(text) == lines


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    (line,) = lines_of("x" * 10_000_000)
    assert len(line) <= MAX_LINE
    shown = line.count("x")
    assert line.endswith(f" [{10_000_000 - shown} more characters]")


@given(st.text() | st.binary())
def test_lines_are_always_sendable(text: str | bytes) -> None:
    for line in lines_of(text):
        assert len(line) <= MAX_LINE
        assert "\n" not in line
        line.encode()


@given(st.lists(st.text(max_size=300), min_size=1), st.integers(400, 2000), st.none() | st.integers(1, 9))
def test_output_is_divided_to_fit(lines: list[str], limit: int, dropped: int | None) -> None:
    whole_lines = lines_of("\n".join(lines))
    data: dict[str, Any] = {"lines": whole_lines, "stream": "stdout"} | ({"dropped": dropped} if dropped else {})
    pieces = list(fitting(data, limit))
    assert all(len(msgspec.json.encode(piece)) <= limit for piece in pieces)
    assert sum(piece.get("dropped", 0) for piece in pieces) == (dropped or 0)
    found = [line for piece in pieces for line in piece["lines"]]
    assert all(whole.startswith(part) for whole, part in zip(whole_lines, found, strict=True))


def test_a_result_that_is_too_large_for_nats_is_left_out_of_the_event() -> None:
    assert list(fitting({"result": "x" * 5000, "by": "ann"}, 4000)) == [{"by": "ann"}]


class Reported(NamedTuple):
    """One call of a job."""

    event: TaskEvent
    data: dict[str, Any]


_progress = st.one_of(
    st.builds(lambda percent: {"percent": percent}, st.integers(0, 100)),
    st.builds(lambda done: {"done": done}, st.integers(0, 50)),
    st.builds(lambda done, total: {"done": done, "total": total}, st.integers(0, 50), st.integers(1, 50)),
    st.builds(lambda stage: {"stage": stage}, st.sampled_from("ab")),
    st.builds(lambda message: {"message": message}, st.sampled_from("xy")),
)
_output = st.builds(
    lambda lines, stream: {"lines": lines, "stream": stream},
    st.lists(st.sampled_from(["one", "two"]), min_size=1, max_size=EVENT_LINES + 3),
    st.sampled_from(list(Stream)),
)
_calls = st.lists(
    st.builds(Reported, st.just(TaskEvent.PROGRESS), _progress)
    | st.builds(Reported, st.just(TaskEvent.OUTPUT), _output)
    | st.builds(Reported, st.sampled_from([TaskEvent.PAUSED, TaskEvent.RESUMED]), st.just({})),
    max_size=30,
)


def _add(buffer: TaskBuffer, call: Reported, now: float) -> None:
    if call.event is TaskEvent.PROGRESS:
        buffer.add_progress(call.data, now)
    elif call.event is TaskEvent.OUTPUT:
        buffer.add_output(call.data["lines"], call.data["stream"], now)
    else:
        buffer.add_state(call.event, call.data, now)


def _folded(calls: list[Reported]) -> Snapshot:
    snapshot = Snapshot()
    for call in [Reported(TaskEvent.STARTED, {}), *calls]:
        snapshot = apply(snapshot, call.event, msgspec.convert(call.data, TaskData), 0)
    return snapshot


@given(_calls, st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.05, 1.0]), st.integers(0, 3)), max_size=30))
def test_the_events_that_are_sent_amount_to_the_calls_that_were_made(
    calls: list[Reported], pace: list[tuple[float, int]]
) -> None:
    buffer, now, sent = TaskBuffer(), 0.0, list[BufferedEvent]()
    for index, call in enumerate(calls):
        _add(buffer, call, now)
        pause, room = pace[index] if index < len(pace) else (0.0, 0)
        now += pause
        sent += buffer.take(now, room)
    while buffer.due < float("inf"):
        now = max(now, buffer.due)
        sent += buffer.take(now, ROOM)

    def states(events: list[TaskEvent]) -> list[TaskEvent]:
        return [event for event in events if event not in (TaskEvent.PROGRESS, TaskEvent.OUTPUT)]

    assert states([event.event for event in sent]) == states([call.event for call in calls])
    said = [(line, call.data["stream"]) for call in calls for line in call.data.get("lines", ())]
    assert [(line, event.data["stream"]) for event in sent for line in event.data.get("lines", ())] == said
    assert _folded([Reported(event.event, event.data) for event in sent]) == _folded(calls)
    assert buffer.dropped == 0
