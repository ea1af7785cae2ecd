"""The events that follow from time alone, which nobody but the monitor would store: a producer's silence, and deadlines
that have passed. Pure.
"""

from typing import Any, NamedTuple

from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TRANSITIONS


class TimerEvent(NamedTuple):
    """An event to store, and its data."""

    event: TaskEvent
    data: dict[str, Any]


def decide(snapshot: Snapshot, silence: float, heard_again: bool, now: int) -> TimerEvent | None:
    """The one timer event that is due, if any; the end of the task comes before all others.

    `silence`: seconds since the producer was heard; `heard_again`: whether it was heard since the task stalled;
    `now`: Unix ms.
    """
    due = _end(snapshot, now) or _expiry(snapshot, now) or _silence(snapshot, silence, heard_again)
    # An event that does not fit the state would be refused by every fold, and be due again and again.
    return due if due is not None and due.event in TRANSITIONS[snapshot.state] else None


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
    expired = TimerEvent(TaskEvent.ASK_EXPIRED, {"ask": ask.id})
    return expired if expired.event in TRANSITIONS[snapshot.state] else None


def _silence(snapshot: Snapshot, silence: float, heard_again: bool) -> TimerEvent | None:
    if heard_again and TaskEvent.HEARD in TRANSITIONS[snapshot.state]:
        return TimerEvent(TaskEvent.HEARD, {})
    if snapshot.heartbeat is not None and silence > snapshot.heartbeat:
        return TimerEvent(TaskEvent.STALLED, {})
    return None
