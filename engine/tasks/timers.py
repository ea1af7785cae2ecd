"""What the keeper tells of a task by itself, since nobody else will: silence, and deadlines that have passed. Pure."""

from typing import Any, NamedTuple

from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TRANSITIONS


class TimerEvent(NamedTuple):
    """An event to store, and its data."""

    event: TaskEvent
    data: dict[str, Any]


def decide(snapshot: Snapshot, silent: float, back: bool, now: int) -> TimerEvent | None:
    """The one thing to be told of a task now, if any; an end comes before all else.

    `silent`: seconds since its producer was heard; `back`: whether it was since it is stalled; `now`: Unix ms.
    """
    verdict = _end(snapshot, now) or _expiry(snapshot, now) or _silence(snapshot, silent, back)
    # What does not fit would be refused, and decided again and again.
    return verdict if verdict is not None and verdict.event in TRANSITIONS[snapshot.state] else None


def _end(snapshot: Snapshot, now: int) -> TimerEvent | None:
    stop = snapshot.stop
    if stop is not None and stop.deadline is not None and stop.deadline <= now:
        return TimerEvent(TaskEvent.CANCELLED, {"forced": True} | ({} if stop.by is None else {"by": stop.by}))
    if snapshot.timeout is None or snapshot.started is None or now < snapshot.started + snapshot.timeout * 1000:
        return None
    return TimerEvent(TaskEvent.TIMED_OUT, {"error": f"it did not end within {snapshot.timeout:g} seconds"})


def _expiry(snapshot: Snapshot, now: int) -> TimerEvent | None:
    ask = snapshot.ask
    if ask is None or not ask.open or ask.deadline is None or now < ask.deadline:
        return None
    verdict = TimerEvent(TaskEvent.ASK_EXPIRED, {"ask": ask.id})
    return verdict if verdict.event in TRANSITIONS[snapshot.state] else None


def _silence(snapshot: Snapshot, silent: float, back: bool) -> TimerEvent | None:
    if back and TaskEvent.HEARD in TRANSITIONS[snapshot.state]:
        return TimerEvent(TaskEvent.HEARD, {})
    if snapshot.heartbeat is not None and silent > snapshot.heartbeat:
        return TimerEvent(TaskEvent.STALLED, {})
    return None
