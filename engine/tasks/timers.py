"""The events that follow from time alone, which nobody but the monitor would store: a producer's silence, and deadlines
that have passed. Pure.

Deadlines are in Unix milliseconds of the store's clock, counted from when the store got the event that set them. The
times in a snapshot are for people: they are as the producer's clock says, which may be hours off.
"""

from typing import Any, NamedTuple

import msgspec

from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import TRANSITIONS, TaskState

NEVER = float("inf")


class TimerEvent(NamedTuple):
    """An event to store, and its data."""

    event: TaskEvent
    data: dict[str, Any]


class Deadlines(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What the timers of a task count from and to."""

    started: int | None = None
    """When the attempt began."""
    ask: int | None = None
    """When the open question expires."""
    stop: int | None = None
    """When the end is forced."""
    stalled: int | None = None
    """When the task stalled, if it has."""

    def after(self, before: Snapshot, now: Snapshot, producer_time: int, stored: int) -> "Deadlines":
        """The deadlines after an event, which led from one snapshot to the next; the store got it at `stored`."""
        unchanged = before.started is now.started and before.ask is now.ask and before.stop is now.stop
        if unchanged and before.state is now.state:
            return self
        same = before.attempt == now.attempt
        kept = self if same else Deadlines()
        started = None if now.started is None else stored if kept.started is None else kept.started
        ahead = stored - producer_time
        ask = _moved(kept.ask, _ask_deadline(before.ask) if same else None, _ask_deadline(now.ask), ahead)
        stop = _moved(kept.stop, _stop_deadline(before.stop) if same else None, _stop_deadline(now.stop), ahead)
        return Deadlines(started, ask, stop, _since(now, kept.stalled, stored))


NONE = Deadlines()


def translated(snapshot: Snapshot, stored: int) -> Deadlines:
    """The deadlines of a snapshot of which only the producer's times are known, and that it was recorded at `stored`:
    from its newest event to then no time counts, so that they may be late, and are never early.
    """
    ahead = stored - (snapshot.updated or 0)
    moved = (snapshot.started, _ask_deadline(snapshot.ask), _stop_deadline(snapshot.stop))
    started, ask, stop = (None if time is None else time + ahead for time in moved)
    return Deadlines(started, ask, stop, _since(snapshot, None, stored))


def _since(snapshot: Snapshot, kept: int | None, stored: int) -> int | None:
    """Since when a task is stalled; None if it is not."""
    if snapshot.state is not TaskState.STALLED:
        return None
    return stored if kept is None else kept


def _moved(kept: int | None, before: int | None, now: int | None, ahead: int) -> int | None:
    return None if now is None else kept if now == before and kept is not None else now + ahead


def _ask_deadline(ask: Ask | None) -> int | None:
    return ask.deadline if ask is not None and ask.open else None


def _stop_deadline(stop: Stop | None) -> int | None:
    return None if stop is None else stop.deadline


def decide(
    snapshot: Snapshot, deadlines: Deadlines, silence: float, heard_again: bool, now: float, patience: float = NEVER
) -> TimerEvent | None:
    """The one timer event that is due, if any; the end of the task comes before all others.

    `silence`: seconds since the producer was heard; `heard_again`: whether it was heard since the task stalled;
    `now`: Unix ms of the store; `patience`: seconds after which a stalled task is given up.
    """
    due = _end(snapshot, deadlines, now) or _surrender(snapshot, deadlines, now, patience, heard_again=heard_again)
    due = due or _expiry(snapshot, deadlines, now)
    due = due or _silence(snapshot, silence, heard_again)
    # An event that does not fit the state would be refused by every fold, and be due again and again.
    return due if due is not None and due.event in TRANSITIONS[snapshot.state] else None


def next_deadline(snapshot: Snapshot, deadlines: Deadlines, patience: float = NEVER) -> float:
    """When the next deadline passes, Unix ms of the store; infinity if there is none."""
    first = NEVER if deadlines.stalled is None else deadlines.stalled + patience * 1000
    if deadlines.stop is not None:
        first = min(first, deadlines.stop)
    if (end := _attempt_deadline(snapshot, deadlines)) is not None:
        first = min(first, end)
    if deadlines.ask is not None and TaskEvent.ASK_EXPIRED in TRANSITIONS[snapshot.state]:
        first = min(first, deadlines.ask)
    return first


def matters(before: Snapshot, now: Snapshot) -> bool:
    """Whether two snapshots differ in what timers need."""
    return (
        before.state is not now.state
        or before.ask is not now.ask
        or before.stop is not now.stop
        or before.attempt != now.attempt
        or before.heartbeat != now.heartbeat
        or before.timeout != now.timeout
        or before.before is not now.before
    )


def can_stall(snapshot: Snapshot) -> bool:
    """Whether silence of its producer would be noticed."""
    return snapshot.heartbeat is not None and TaskEvent.STALLED in TRANSITIONS[snapshot.state]


def can_be_heard(snapshot: Snapshot) -> bool:
    """Whether it has stalled, and a sign of life would end that."""
    return TaskEvent.HEARD in TRANSITIONS[snapshot.state]


def _end(snapshot: Snapshot, deadlines: Deadlines, now: float) -> TimerEvent | None:
    stop = snapshot.stop
    if stop is not None and deadlines.stop is not None and deadlines.stop <= now:
        return TimerEvent(TaskEvent.CANCELLED, {"forced": True} | ({} if stop.by is None else {"by": stop.by}))
    end = _attempt_deadline(snapshot, deadlines)
    if end is None or now < end:
        return None
    return TimerEvent(TaskEvent.TIMED_OUT, {"error": f"it did not end within {snapshot.timeout:g} seconds"})


def _surrender(
    snapshot: Snapshot, deadlines: Deadlines, now: float, patience: float, *, heard_again: bool
) -> TimerEvent | None:
    """Nobody expects a producer any more that has been silent for that long."""
    if heard_again or deadlines.stalled is None or now < deadlines.stalled + patience * 1000:
        return None
    return TimerEvent(TaskEvent.TIMED_OUT, {"error": f"its producer has been silent for {patience:g} seconds"})


def _attempt_deadline(snapshot: Snapshot, deadlines: Deadlines) -> float | None:
    """When the attempt times out. One that has failed does not: the next has a time of its own."""
    if snapshot.timeout is None or deadlines.started is None or snapshot.attempt_ended:
        return None
    return deadlines.started + snapshot.timeout * 1000


def _expiry(snapshot: Snapshot, deadlines: Deadlines, now: float) -> TimerEvent | None:
    ask = snapshot.ask
    if ask is None or not ask.open or deadlines.ask is None or now < deadlines.ask:
        return None
    expired = TimerEvent(TaskEvent.ASK_EXPIRED, {"ask": ask.id})
    return expired if expired.event in TRANSITIONS[snapshot.state] else None


def _silence(snapshot: Snapshot, silence: float, heard_again: bool) -> TimerEvent | None:
    if heard_again and can_be_heard(snapshot):
        return TimerEvent(TaskEvent.HEARD, {})
    if snapshot.heartbeat is not None and silence > snapshot.heartbeat:
        return TimerEvent(TaskEvent.STALLED, {})
    return None
