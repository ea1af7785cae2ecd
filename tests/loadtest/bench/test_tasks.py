"""The task bench is correct at a small size, and would notice any fault in what a viewer receives."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fanline.loadtest.bench.__main__ import main
from fanline.loadtest.bench.processes import options, program, running
from fanline.loadtest.bench.tasks.record import Truth, ViewerRecord, faults_of, progress_share, read_record, wrong_truth
from fanline.loadtest.bench.tasks.script import RESULT, script
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.websocket.frames import Opcode, encode_frame
from tests.loadtest.bench.fake_server import serving

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) for the viewers")
SMALL = ("tasks", "--viewers", "60", "--slow", "3", "--seconds", "2", "--progress", "400", "--lines", "100")


@needs_compiler
def test_every_viewer_ends_with_the_truth_and_slow_ones_got_less_progress(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*SMALL, "--json"])
    report = msgspec.json.decode(capsys.readouterr().out)
    ((figures,),) = (sides.values() for sides in report["reports"][0]["rounds"])
    assert figures["faults"] == []
    assert (code, report["complete"]) == (0, True)
    assert figures["slow_share"] < figures["fast_share"] <= 100
    assert figures["deliveries"] > 57 * 500
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]


@needs_compiler
def test_the_bench_fails_and_says_why_when_viewers_do_not_end_as_the_producer_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.loadtest.bench.tasks.measure.RESULT", "another")
    assert main(["tasks", "--viewers", "4", "--slow", "0", "--seconds", "0.5"]) == 1
    printed = capsys.readouterr().out
    assert "wrong: a client that joins after the end gets ('completed', " in printed
    assert all(word in printed for word in ("deliveries/s", "line p99 ms", "progress, slow", "load average"))


def test_the_script_has_the_requested_length_and_is_in_order() -> None:
    events = script(200, 50, 10)
    assert [each.at for each in events] == sorted(each.at for each in events)
    assert sum(each.event == "task_progress" for each in events) == 2000
    assert sum(each.event == "task_output" for each in events) == 500
    assert (events[0].event, events[-1].event) == ("task_started", "task_completed")


# --- faults that a viewer notices -----------------------------------------------------------------------------------


def message(offset: int, event: str, previous: int | None = None, **data: Any) -> dict[str, Any]:
    before = {} if event == "task_snapshot" else {"p": offset - 1 if previous is None else previous}
    return {"v": 1, "t": "pub", "c": "task:bench", "o": offset, **before, "e": event, "d": data, "ts": offset}


def output(offset: int, number: int, first: int | None = None, previous: int | None = None) -> dict[str, Any]:
    lines = [f"@@{number:08d}{0:016d}"]
    return message(offset, "task_output", previous, lines=lines, first=number if first is None else first)


def right() -> list[dict[str, Any]]:
    """The messages for a viewer that joins after one line."""
    snapshot = {"state": "running", "attempt": 1, "lines": 1, "created": 1, "started": 1, "updated": 2}
    return [
        message(2, "task_snapshot", snapshot=snapshot, output=[{"lines": [f"@@{0:024d}"], "first": 0, "attempt": 1}]),
        message(3, "task_progress", done=1, total=4, percent=25.0),
        output(4, 1),
        message(5, "task_paused"),
        message(6, "task_progress", done=2, total=4, percent=50.0, stage="b"),
        message(7, "task_resumed"),
        output(8, 2),
        message(9, "task_completed", result=RESULT),
    ]


def watched(messages: list[dict[str, Any]], directory: Path) -> ViewerRecord:
    """The record of the C viewer for these messages."""
    frames = b"".join(encode_frame(Opcode.TEXT, msgspec.json.encode(one)) for one in messages)
    record = directory / "record"
    with serving(frames) as (port, served):
        wanted = {"port": port, "subscribe": "hello", "connections": 1, "record": record}
        with running([program("viewers"), *options(wanted)]) as tool:
            assert tool.read(10) == {"ready": 1}
            tool.send("join")
            served.result(10)
            tool.send("read\nend")
            tool.read(10)
    (viewer,) = read_record(record)
    return viewer


TRUTH = Truth(
    Snapshot(
        state=TaskState.COMPLETED,
        attempt=1,
        stage="b",
        percent=50.0,
        done=2,
        total=4,
        lines=3,
        created=1,
        started=1,
        updated=9,
        ended=9,
        result=RESULT,
    ),
    {1: "task_started", 5: "task_paused", 7: "task_resumed", 9: "task_completed"},
    3,
)


def gap() -> dict[str, Any]:
    return {"v": 1, "t": "gap", "c": "task:bench", "d": {"reason": "expired"}}


@needs_compiler
def test_a_viewer_that_gets_everything_has_no_faults(tmp_path: Path) -> None:
    viewer = watched(right(), tmp_path)
    assert list(faults_of(viewer, TRUTH)) == []
    assert (viewer.counts.progress, viewer.counts.lines) == (2, 2)
    assert progress_share(viewer, 2) == 1


@needs_compiler
@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda sent: sent.__setitem__(2, output(4, 2)), "expected output line 1, but got line 2"),
        (lambda sent: sent.__setitem__(2, output(4, 1, first=7)), "with the number 7"),
        (lambda sent: sent.pop(3), "follows on"),
        (lambda sent: sent.__setitem__(slice(3, 4), []), "got the changes"),
        (lambda sent: sent.__setitem__(-1, message(9, "task_completed", result=5)), "result"),
        (lambda sent: sent.__setitem__(4, message(6, "task_progress", done=1, total=4, percent=25.0)), "stage"),
        (lambda sent: sent.pop(), "state"),
        (lambda sent: sent[0]["d"].update(output=[]), "with a snapshot of 1"),
        (lambda sent: sent.insert(3, gap()), "reads quickly, but got 1 gaps"),
        (lambda sent: sent.insert(4, message(5, "task_heard", previous=5)), "does not fit"),
    ],
)
def test_a_viewer_notices(spoil: Callable[[list[dict[str, Any]]], Any], fault: str, tmp_path: Path) -> None:
    sent = right()
    spoil(sent)
    faults = list(faults_of(watched(sent, tmp_path), TRUTH))
    assert any(fault in one for one in faults), faults


def test_a_truth_that_differs_from_the_script_is_noticed() -> None:
    said = list(TRUTH.changes.values())
    assert list(wrong_truth(TRUTH, said, RESULT)) == []
    assert list(wrong_truth(TRUTH, said[1:], RESULT)) != []
    assert list(wrong_truth(TRUTH, said, None)) != []
