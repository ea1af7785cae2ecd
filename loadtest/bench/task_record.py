"""What the viewers of the task bench were sent (viewers.c), folded and compared with the truth."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.envelope import decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import TaskData, TaskEvent, data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot

DEFAULT_LINES = 200
"""Lines a viewer is told of when it joins."""
_QUIET = (TaskEvent.PROGRESS, TaskEvent.OUTPUT)


class Counts(msgspec.Struct, frozen=True):
    """What viewers.c counted of one viewer."""

    viewer: int
    slow: bool
    lines: int
    progress: int
    next: int
    """Number of the output line that would have come next."""
    gaps: int
    wrong: str


class Begin(NamedTuple):
    """A snapshot as it came, and the numbers of the lines with it: as the engine says, and as they say themselves."""

    offset: int
    snapshot: Snapshot
    lines: list[tuple[int, int]]


class Viewer:
    """One viewer's way from its snapshot to the end."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.begins: list[Begin] = []
        """Each snapshot it was sent: one when it joined, one after every gap."""
        self.snapshot = Snapshot()
        self.changes: dict[int, str] = {}
        """Offset -> event of everything but output and progress."""
        self.refused = ""
        """Why an event did not fit."""

    def take(self, frame: bytes) -> None:
        if b'"e":"task_snapshot"' in frame[:512]:
            self.begins.append(_begin(frame))
            self.snapshot = self.begins[-1].snapshot
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


def _begin(frame: bytes) -> Begin:
    envelope = decode_json(frame)
    data: Any = envelope.value
    return Begin(
        envelope.offset or 0,
        msgspec.convert(data["snapshot"], Snapshot),
        [
            (batch["first"] + index, int(line[2:10]))
            for batch in data["output"]
            for index, line in enumerate(batch["lines"])
        ],
    )


def snapshot_of(frame: bytes) -> Snapshot:
    return _begin(frame).snapshot


def read_record(path: Path) -> Iterator[Viewer]:
    """The viewers of a record, one after the other."""
    viewer: Viewer | None = None
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b'{"viewer":'):
                if viewer is not None:
                    yield viewer
                viewer = Viewer(msgspec.json.decode(line, type=Counts))
            elif viewer is not None and line != b"\n":
                viewer.take(line.rstrip(b"\n"))
    if viewer is not None:
        yield viewer


class Truth(NamedTuple):
    """What every viewer must have come to."""

    snapshot: Snapshot
    """Of one who joined after the end."""
    changes: dict[int, str]
    """As Viewer.changes, of one who was there from the start."""
    lines: int
    """Output lines that were said."""


def faults_of(viewer: Viewer, truth: Truth) -> Iterator[str]:
    """What is not as it must be, a sentence each."""
    counts = viewer.counts
    if not viewer.begins:
        yield "never got a snapshot"
        return
    yield from filter(None, (counts.wrong, viewer.refused))
    yield from _wrong_lines(viewer, truth)
    if viewer.snapshot != truth.snapshot:
        yield f"ended as {_differences(viewer.snapshot, truth.snapshot)}"
    begin = viewer.begins[-1] if counts.slow else viewer.begins[0]
    expected = {offset: event for offset, event in truth.changes.items() if offset > begin.offset}
    if {offset: event for offset, event in viewer.changes.items() if offset > begin.offset} != expected:
        yield f"got the changes {list(viewer.changes.values())} instead of {list(expected.values())}"
    if not counts.slow and counts.gaps:
        yield f"reads quickly, and got {counts.gaps} gaps"


def _wrong_lines(viewer: Viewer, truth: Truth) -> Iterator[str]:
    counts = viewer.counts
    for _, snapshot, lines in viewer.begins:
        tail = range(max(0, snapshot.lines - DEFAULT_LINES), snapshot.lines)
        if lines != [(number, number) for number in tail]:
            yield f"got the lines {lines[:1]} to {lines[-1:]} with a snapshot of {snapshot.lines}"
    if counts.next != truth.lines:
        yield f"got output up to line {counts.next} of {truth.lines}"
    if not counts.gaps and viewer.begins[0].snapshot.lines + counts.lines != truth.lines:
        yield f"got {counts.lines} lines after {viewer.begins[0].snapshot.lines}, of {truth.lines}"


def _differences(found: Snapshot, expected: Snapshot) -> dict[str, str]:
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in Snapshot.__struct_fields__}
    return {name: f"{ours!r} instead of {true!r}" for name, (ours, true) in pairs.items() if ours != true}


def progress_share(viewer: Viewer, total: int) -> float | None:
    """The share of the progress events said while it was there that it got; None if there were none."""
    said = total - round(viewer.begins[0].snapshot.done or 0) if viewer.begins else 0
    return viewer.counts.progress / said if said else None


def wrong_truth(truth: Truth, changes: Sequence[str], result: object) -> Iterator[str]:
    """How the truth itself is not what the producer said."""
    snapshot = truth.snapshot
    known = (str(snapshot.state), snapshot.percent, snapshot.result, snapshot.attempt, snapshot.lines)
    if known != ("completed", 100.0, result, 1, truth.lines):
        yield f"whoever joins after the end is told {known}"
    if list(truth.changes.values()) != list(changes):
        yield f"the first viewer got {list(truth.changes.values())} instead of {list(changes)}"
