"""What the viewers of the task bench received (native/viewers.c), folded and compared with the truth."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.envelope import decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.messages.commands import DEFAULT_LINES
from fanline.protocol.tasks.events import TaskData, TaskEvent, data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot

_QUIET = (TaskEvent.PROGRESS, TaskEvent.OUTPUT)


class ViewerCounts(msgspec.Struct, frozen=True):
    """What viewers.c counted for one viewer."""

    viewer: int
    slow: bool
    lines: int
    progress: int
    next: int
    """Number of the output line that would have been next."""
    gaps: int
    wrong: str


class ReceivedSnapshot(NamedTuple):
    """A snapshot as it arrived. Each of its lines has two numbers: the engine's, and the one in the line itself."""

    offset: int
    snapshot: Snapshot
    lines: list[tuple[int, int]]


class ViewerRecord:
    """All that one viewer received, from its snapshot to the end, folded."""

    def __init__(self, counts: ViewerCounts) -> None:
        self.counts = counts
        self.snapshots: list[ReceivedSnapshot] = []
        """One when it joined, and one after every gap."""
        self.snapshot = Snapshot()
        self.changes: dict[int, str] = {}
        """Offset -> event, for all events except output and progress."""
        self.refused = ""
        """Why an event did not fit; empty if all did."""

    def take(self, frame: bytes) -> None:
        if b'"e":"task_snapshot"' in frame[:512]:
            self.snapshots.append(_received_snapshot(frame))
            self.snapshot = self.snapshots[-1].snapshot
        elif b'"t":"pub"' in frame[:512]:
            self._fold(*_event(frame))

    def _fold(self, offset: int, event: TaskEvent, data: TaskData, time: int) -> None:
        try:
            self.snapshot = apply(self.snapshot, event, data, time)
        except MessageError as error:
            self.refused = self.refused or str(error)
        if event not in _QUIET:
            self.changes[offset] = event


@lru_cache(maxsize=100_000)
def _event(frame: bytes) -> tuple[int, TaskEvent, TaskData, int]:
    envelope = decode_json(frame)
    event = event_of(envelope)
    assert event is not None, frame
    return envelope.offset or 0, event, data_of(envelope, event), envelope.time or 0


def _received_snapshot(frame: bytes) -> ReceivedSnapshot:
    envelope = decode_json(frame)
    data: Any = envelope.value
    return ReceivedSnapshot(
        envelope.offset or 0,
        msgspec.convert(data["snapshot"], Snapshot),
        [
            (batch["first"] + index, int(line[2:10]))
            for batch in data["output"]
            for index, line in enumerate(batch["lines"])
        ],
    )


def snapshot_of(frame: bytes) -> Snapshot:
    return _received_snapshot(frame).snapshot


def read_record(path: Path) -> Iterator[ViewerRecord]:
    """The viewers in the file that viewers.c wrote."""
    viewer: ViewerRecord | None = None
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b'{"viewer":'):
                if viewer is not None:
                    yield viewer
                viewer = ViewerRecord(msgspec.json.decode(line, type=ViewerCounts))
            elif viewer is not None and line != b"\n":
                viewer.take(line.rstrip(b"\n"))
    if viewer is not None:
        yield viewer


class Truth(NamedTuple):
    """What every viewer must have in the end."""

    snapshot: Snapshot
    """The snapshot for a client that joins after the end."""
    changes: dict[int, str]
    """The `ViewerRecord.changes` of the viewer that was there from the start."""
    lines: int
    """Output lines that were published."""


def faults_of(viewer: ViewerRecord, truth: Truth) -> Iterator[str]:
    """How the viewer differs from the truth, in one phrase for each fault."""
    counts = viewer.counts
    if not viewer.snapshots:
        yield "never got a snapshot"
        return
    yield from filter(None, (counts.wrong, viewer.refused))
    yield from _wrong_lines(viewer, truth)
    if viewer.snapshot != truth.snapshot:
        yield f"ended as {_differences(viewer.snapshot, truth.snapshot)}"
    start = (viewer.snapshots[-1] if counts.slow else viewer.snapshots[0]).offset
    expected = {offset: event for offset, event in truth.changes.items() if offset > start}
    if {offset: event for offset, event in viewer.changes.items() if offset > start} != expected:
        yield f"got the changes {list(viewer.changes.values())} instead of {list(expected.values())}"
    if not counts.slow and counts.gaps:
        yield f"reads quickly, but got {counts.gaps} gaps"


def _wrong_lines(viewer: ViewerRecord, truth: Truth) -> Iterator[str]:
    counts = viewer.counts
    for _, snapshot, lines in viewer.snapshots:
        tail = range(max(0, snapshot.lines - DEFAULT_LINES), snapshot.lines)
        if lines != [(number, number) for number in tail]:
            yield f"got the lines {lines[:1]} to {lines[-1:]} with a snapshot of {snapshot.lines}"
    if counts.next != truth.lines:
        yield f"got output up to line {counts.next} of {truth.lines}"
    if not counts.gaps and viewer.snapshots[0].snapshot.lines + counts.lines != truth.lines:
        yield f"got {counts.lines} lines after {viewer.snapshots[0].snapshot.lines}, of {truth.lines}"


def _differences(found: Snapshot, expected: Snapshot) -> dict[str, str]:
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in Snapshot.__struct_fields__}
    return {name: f"{ours!r} instead of {true!r}" for name, (ours, true) in pairs.items() if ours != true}


def progress_share(viewer: ViewerRecord, total: int) -> float | None:
    """The share of progress events that the viewer got, of those published after it joined; None if there were none."""
    published = total - round(viewer.snapshots[0].snapshot.done or 0) if viewer.snapshots else 0
    return viewer.counts.progress / published if published else None


def wrong_truth(truth: Truth, changes: Sequence[str], result: object) -> Iterator[str]:
    """How the truth itself differs from what the producer published."""
    snapshot = truth.snapshot
    known = (str(snapshot.state), snapshot.result, snapshot.attempt, snapshot.lines)
    if known != ("completed", result, 1, truth.lines):
        yield f"a client that joins after the end gets {known}"
    if list(truth.changes.values()) != list(changes):
        yield f"the first viewer got {list(truth.changes.values())} instead of {list(changes)}"
