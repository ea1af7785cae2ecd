"""What a viewer of one of many tasks must know in the end, and how it differs. Pure."""

from collections.abc import Iterator
from typing import Any

from fanline.loadtest.bench.tasks.record import ViewerRecord
from fanline.loadtest.bench.tasks.watched_tasks import TITLE, TOTAL, TaskWork
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState


def state_faults(viewer: ViewerRecord, task: int, work: TaskWork) -> Iterator[str]:
    """How a viewer that was there from the start differs from what was published, in one phrase for each fault."""
    counts = viewer.counts
    if not viewer.snapshots:
        yield "never got a snapshot"
        return
    yield from filter(None, (counts.wrong, viewer.refused))
    if counts.gaps:
        yield f"got {counts.gaps} gaps"
    if counts.lines != work.lines:
        yield f"got {counts.lines} output lines of {work.lines}"
    if list(viewer.changes.values()) != [TaskEvent.COMPLETED]:
        yield f"got the changes ({', '.join(viewer.changes.values())}) instead of task_completed"
    expected, found = _expected(task, work), _found(viewer.snapshot)
    for name in expected:
        if found[name] != expected[name]:
            yield f"ended with {name} {found[name]!r} instead of {expected[name]!r}"


def _expected(task: int, work: TaskWork) -> dict[str, Any]:
    newest = work.progress - 1  # they are numbered from 0
    return {
        "state": TaskState.COMPLETED,
        "attempt": 1,
        "title": TITLE % task,
        "percent": min(100.0, 100 * newest / TOTAL),  # it ends without having done everything
        "done": newest,
        "total": TOTAL,
        "message": f"@@{newest:08d}",
        "lines": work.lines,
        "result": {"task": task},
    }


def _found(snapshot: Snapshot) -> dict[str, Any]:
    known = {name: getattr(snapshot, name) for name in _expected(0, TaskWork())}
    return known | {"message": (snapshot.message or "")[:10]}  # the rest of the stamp is the time
