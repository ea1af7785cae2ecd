"""The bench of many tasks is correct at a small size, and would notice a wrong final state of any viewer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fanline.loadtest.bench.__main__ import main
from fanline.loadtest.bench.processes import options, program, running
from fanline.loadtest.bench.tasks.final_state import state_faults
from fanline.loadtest.bench.tasks.many import next_rate
from fanline.loadtest.bench.tasks.record import ViewerRecord, read_record
from fanline.loadtest.bench.tasks.watched_tasks import Round, TaskWork
from fanline.protocol.websocket.frames import Opcode, encode_frame
from tests.loadtest.bench.fake_server import serving

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) for the viewers")
SMALL = ("many-tasks", "--tasks", "20", "--seconds", "1", "--repeat", "1")


@needs_compiler
def test_every_viewer_of_every_task_ends_with_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*SMALL, "--each", "2", "--rate", "200", "400", "--json"])
    report = msgspec.json.decode(capsys.readouterr().out)
    assert (code, report["complete"]) == (0, True)
    for rate, one in zip((200, 400), report["reports"], strict=True):
        figures = one["rounds"][0]["fanline"]
        assert figures["faults"] == []
        assert (figures["channels"], figures["subscribers"], figures["deliveries"]) == (20, 40, 2 * rate)
        assert (figures["progress_percent"], len(figures["rounds"])) == (100, 1)
        assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
        assert min(figures["cpu_us_per_event"], figures["nats_us_per_event"]) > 0


@needs_compiler
def test_the_most_events_a_second_are_looked_for_and_every_rate_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.loadtest.bench.tasks.many.MOST_TRIES", 2)
    assert main([*SMALL, "--rate", "100", "--most"]) == 0
    printed = capsys.readouterr().out
    assert "20 tasks, 20 viewers, from 100 events/s on for 1 s" in printed
    assert "\n100 events/s: " in printed
    assert "\n200 events/s: " in printed


@needs_compiler
def test_a_comparison_has_the_c_floor_send_as_many_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--rate", "100", "--vs", "c", "--json"]) == 0
    (report,) = msgspec.json.decode(capsys.readouterr().out)["reports"]
    assert {side: figures["deliveries"] for side, figures in report["rounds"][0].items()} == {"fanline": 100, "c": 100}
    assert [ratio["figure"] for ratio in report["ratios"]] == ["cpu_us_per_delivery"]


@needs_compiler
def test_the_bench_fails_and_says_why_when_viewers_end_with_another_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.loadtest.bench.tasks.final_state.TOTAL", 7)
    assert main([*SMALL, "--rate", "100"]) == 1
    printed = capsys.readouterr().out
    assert "wrong: viewer 0 ended with total 1000 instead of 7" in printed
    assert all(word in printed for word in ("CPU µs/event", "nats CPU µs/event", "p99 ms", "load average"))


# --- the rates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tried", "rate"),
    [
        ([(1000, True)], 2000),
        ([(1000, True), (2000, True)], 4000),
        ([(1000, True), (2000, False)], 1500),
        ([(1000, False)], 500),
        ([(1000, True), (2000, False), (1500, True), (1750, False)], 1625),
        ([(1000, True), (1100, False)], None),
        ([(1000, False), (2000, True)], None),
        ([(2.0**n, True) for n in range(9)], None),
    ],
)
def test_the_next_rate_is_double_or_halfway_until_the_most_is_known_closely(
    tried: list[tuple[float, bool]], rate: float | None
) -> None:
    assert next_rate(tried) == rate


def round_of(**changes: Any) -> Round:
    """1,000 events in one second, on time."""
    figures = dict.fromkeys(("cpu", "nats_cpu", "receivers_cpu", "publisher_cpu"), 0.0)
    on_time = {"published_seconds": 1.0, "delivered_seconds": 1.0, "deliveries": 1000, "wall": 1.0, "arrived": True}
    return Round(**{"rate": 1000, "events": 1000, "latency": {}, **figures, **on_time, **changes})


@pytest.mark.parametrize(
    ("changes", "kept_up"),
    [
        ({}, True),
        ({"published_seconds": 1.2}, False),
        ({"delivered_seconds": 1.2}, False),
        ({"arrived": False}, False),
    ],
)
def test_a_round_has_kept_up_if_everything_was_published_and_delivered_in_its_time(
    changes: dict[str, Any], kept_up: bool
) -> None:
    assert round_of(**changes).kept_up is kept_up


def test_every_fifth_event_of_a_task_is_output_however_they_are_divided_into_rounds() -> None:
    assert TaskWork().after(14) == (12, 2)
    assert TaskWork().after(4).after(1).after(9) == (12, 2)


# --- faults that a viewer notices -----------------------------------------------------------------------------------


def message(offset: int, event: str, **data: Any) -> dict[str, Any]:
    before = {} if event == "task_snapshot" else {"p": offset - 1}
    return {"v": 1, "t": "pub", "c": "task:0", "o": offset, **before, "e": event, "d": data, "ts": offset}


def progress(offset: int, number: int) -> dict[str, Any]:
    return message(offset, "task_progress", done=number, total=1000, message=f"@@{number:08d}{0:016d} compiling")


def right() -> list[dict[str, Any]]:
    """The messages of task 0 with four progress events and one line of output."""
    snapshot = {"state": "running", "attempt": 1, "title": "Task 0", "created": 1, "started": 1, "updated": 1}
    return [
        message(1, "task_snapshot", snapshot=snapshot, output=[]),
        *(progress(2 + number, number) for number in range(4)),
        message(6, "task_output", lines=[f"@@{0:024d}"], first=0),
        message(7, "task_completed", result={"task": 0}),
    ]


def watched(messages: list[dict[str, Any]], directory: Path) -> tuple[dict[str, Any], ViewerRecord]:
    """What the C viewer reports and records of these messages."""
    frames = b"".join(encode_frame(Opcode.TEXT, msgspec.json.encode(one)) for one in messages)
    record = directory / "record"
    with serving(frames) as (port, served):
        wanted = {"port": port, "subscribe": "hello", "connections": 1, "record": record}
        with running([program("task_viewers"), *options(wanted)]) as tool:
            assert tool.read(10)["ready"] == 1
            tool.send("end")
            served.result(10)
            tool.send("stop")
            seen = tool.read(10)
    (viewer,) = read_record(record)
    return seen, viewer


@needs_compiler
def test_a_viewer_that_gets_everything_has_no_faults(tmp_path: Path) -> None:
    seen, viewer = watched(right(), tmp_path)
    assert list(state_faults(viewer, 0, TaskWork(progress=4, lines=1))) == []
    assert (viewer.counts.progress, viewer.counts.lines) == (4, 1)
    assert sum(count for _, count in seen["latency"]) <= 5  # those that came before the command are not measured


@needs_compiler
@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda sent: sent.pop(2), "follows on"),
        (lambda sent: sent.__setitem__(4, progress(5, 2)), "ended with done 2 instead of 3"),
        (lambda sent: sent.__setitem__(5, message(6, "task_heard")), "got 0 output lines of 1"),
        (lambda sent: sent[5]["d"].update(first=1), "expected output line 0"),
        (lambda sent: sent[0]["d"]["snapshot"].update(title="Task 1"), "ended with title 'Task 1'"),
        (lambda sent: sent[-1]["d"].update(result=None), "ended with result None"),
        (lambda sent: sent.__setitem__(6, message(7, "task_failed")), "got the changes (task_failed) instead"),
        (lambda sent: sent.insert(2, {"t": "gap", "c": "task:0", "d": {"reason": "slow"}}), "got 1 gaps"),
        (lambda sent: sent.pop(), "ended with state"),
    ],
)
def test_a_viewer_notices(spoil: Callable[[list[dict[str, Any]]], Any], fault: str, tmp_path: Path) -> None:
    sent = right()
    spoil(sent)
    _, viewer = watched(sent, tmp_path)
    faults = list(state_faults(viewer, 0, TaskWork(progress=4, lines=1)))
    assert any(fault in one for one in faults), faults
