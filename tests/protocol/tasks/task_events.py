"""Events of a task for property tests: mostly sensible ones, in any order, and the fold over those that fit."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot
from tests.protocol.strategies import json_values

PUBLISHED: list[TaskEvent] = [event for event in TaskEvent if event is not TaskEvent.SNAPSHOT]
_maybe = st.none()
_percents = st.floats(0, 100)
_amounts = st.integers(0, 1000) | st.floats(0, 1e300)
_seconds = st.integers(1, 100)
_asks = st.sampled_from(["a", "b"])


class Said(NamedTuple):
    """One event, with the milliseconds since the one before it."""

    event: TaskEvent
    data: TaskData
    later: int = 0


_DATA: dict[TaskEvent, dict[str, st.SearchStrategy[Any]]] = {
    TaskEvent.CREATED: {"title": _maybe | st.just("Build"), "total": _maybe | _amounts},
    TaskEvent.STARTED: {"heartbeat": _maybe | _seconds, "timeout": _maybe | _seconds, "total": _maybe | _amounts},
    TaskEvent.PROGRESS: {
        "percent": _maybe | _percents,
        "done": _maybe | _amounts,
        "total": _maybe | _amounts,
        "stage": _maybe | st.sampled_from(["compile", "link"]),
        "message": _maybe | st.just("..."),
        "rate": _maybe | st.just(2.5),
        "eta": _maybe | st.just(60.0),
    },
    TaskEvent.OUTPUT: {"lines": st.lists(st.just("x"), max_size=3), "dropped": _maybe | st.integers(0, 5)},
    TaskEvent.ASKED: {"ask": _asks, "text": st.just("deploy?"), "deadline": _maybe | _seconds},
    TaskEvent.ANSWERED: {"ask": _maybe | _asks, "by": st.sampled_from(["ann", "bob"]), "value": json_values},
    TaskEvent.ASK_EXPIRED: {"ask": _asks},
    TaskEvent.CANCEL_REQUESTED: {"by": st.just("ann"), "deadline": _maybe | _seconds},
    TaskEvent.COMPLETED: {"result": json_values},
    TaskEvent.FAILED: {"error": st.just("it broke"), "result": json_values},
    TaskEvent.CANCELLED: {"by": _maybe | st.just("bob"), "forced": st.booleans()},
}


@st.composite
def said(draw: st.DrawFn, events: list[TaskEvent] = PUBLISHED) -> Said:
    event = draw(st.sampled_from(events))
    fields = {key: draw(value) for key, value in _DATA.get(event, {}).items()}
    attempt = draw(st.sampled_from([None] * 8 + [1, 1, 2, 3]))
    return Said(event, TaskData(attempt=attempt, **fields), draw(st.sampled_from([0, 1, 500, 5000, -3])))


LIVE: list[TaskEvent] = [
    event for event in PUBLISHED if event.name not in ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
]
histories = st.lists(said(), max_size=25) | st.lists(said(LIVE), max_size=25)
"""Any events in any order; many do not fit."""


def fold(snapshot: Snapshot, events: list[Said], time: int = 1_000_000) -> tuple[Snapshot, int]:
    """The snapshot after the events that fit, and the time of the last event."""
    for event in events:
        time += event.later
        try:
            snapshot = apply(snapshot, event.event, event.data, time)
        except MessageError:
            continue
    return snapshot, time
