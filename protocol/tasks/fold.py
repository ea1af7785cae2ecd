"""The fold: a task is a channel `task:<id>`, and its snapshot is the fold over the channel's events in their order.

Everyone who folds the same events gets the same snapshot: every worker, the task monitor, and the viewers, who begin
with a snapshot instead of the first event. Pure functions; time is an argument. docs/reference/tasks.md shows the table
of states as a diagram, and a test compares the two.

The rules on top of the table (protocol/tasks/states.py):

- An event is about the attempt that it names, or else about the current one; after the end of an attempt, `created` and
  `started` are about the next one. An event of an older attempt is refused. One of a newer attempt begins a new run in
  the row UNKNOWN, whatever state the old one was in. So a terminal state is final for its attempt.
- A stalled task whose producer speaks first returns to the state it was in. The row STALLED has only events of others,
  and the ends.
- The state hidden by STALLED or CANCELLING (`before`) follows the events, so that a return to it is not a return in
  time.
- An event without an entry in the table is refused and changes nothing.
- An event with a serial number counts once (protocol/tasks/serials.py). A repeat, even after the end, changes nothing.
"""

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.estimate import seconds_left
from fanline.protocol.tasks.events import MAX_FIELDS_BYTES, MAX_RESULT_BYTES, AskKind, TaskData, TaskEvent
from fanline.protocol.tasks.serials import is_ahead, with_serial
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import (
    BEFORE,
    ENGINE_EVENTS,
    SUSPENDED,
    TERMINAL,
    TRANSITIONS,
    WAITING,
    WORKING,
    Target,
    TaskState,
)

CONFLATED = "progress"
"""Conflation key of all progress of a task: of several that wait for a slow viewer, only the newest is sent."""
_T = TypeVar("_T")


def apply(snapshot: Snapshot, event: TaskEvent, data: TaskData, time: int) -> Snapshot:
    """The snapshot after an event that was published at `time` (Unix ms).

    Raises MessageError for an event that does not fit, which must then be left out: TASK_ENDED after the end,
    ALREADY_ANSWERED, STALE_ATTEMPT, or BAD_STATE if the table has no entry for it, or it comes too late. It is a
    TakenBeforeError if this very event was taken before.
    """
    snapshot = _of_attempt(snapshot, event, data)
    serials = snapshot.serials
    if data.serial is not None:
        serials = with_serial(serials, data.serial, is_output=event is TaskEvent.OUTPUT)
    if snapshot.state is TaskState.STALLED and event not in ENGINE_EVENTS:
        snapshot = replace(snapshot, state=snapshot.before or TaskState.RUNNING, before=None)
    _refuse_late(snapshot, event, data)
    target = _target(snapshot, snapshot.state, event, data)
    if target is None:
        raise _does_not_fit(snapshot, event)
    state = (snapshot.before or TaskState.RUNNING) if target is BEFORE else target
    before = _behind(snapshot, event, data) if state in SUSPENDED else None
    fields = _FIELDS.get(event, _nothing)(snapshot, data, time)
    if "eta" not in fields:
        fields["eta"] = seconds_left(snapshot.eta, snapshot.updated, time)
    if snapshot.created is None:
        fields["created"] = time
    if snapshot.started is None and (before or state) in WORKING:
        fields["started"] = time
    if state in WAITING:
        fields["eta"] = None  # it is unknown how long the task will wait
    if state in TERMINAL:
        fields |= _unasked(snapshot, data, time) | {"rate": None, "eta": None, "ended": time}
    return replace(snapshot, state=state, before=before, updated=time, serials=serials, **fields)


def conflation_key(event: TaskEvent) -> str | None:
    """Progress gives way to newer progress; all other events are kept."""
    return CONFLATED if event is TaskEvent.PROGRESS else None


def attempt_of(snapshot: Snapshot, event: TaskEvent, data: TaskData) -> int:
    """The attempt that an event is about. One above the snapshot's begins a new run."""
    again = snapshot.attempt_ended and event in (TaskEvent.CREATED, TaskEvent.STARTED)
    again = again and is_ahead(snapshot.serials, data.serial)  # otherwise it belongs to the attempt that has ended
    return data.attempt or max(1, snapshot.attempt + again)


def _of_attempt(snapshot: Snapshot, event: TaskEvent, data: TaskData) -> Snapshot:
    attempt = attempt_of(snapshot, event, data)
    if attempt < snapshot.attempt:
        text = f"attempt {attempt} was superseded by attempt {snapshot.attempt}"
        raise MessageError(ErrorCode.STALE_ATTEMPT, text)
    if attempt == snapshot.attempt:
        return snapshot
    kept = {key: getattr(snapshot, key) for key in ("title", "kind", "fields", "created", "heartbeat", "timeout")}
    return Snapshot(attempt=attempt, **kept)


def _target(snapshot: Snapshot, state: TaskState, event: TaskEvent, data: TaskData) -> Target | None:
    """Where the table leads. Input that answers no question leaves the state as it is, and so does a question whose
    answer is on its way.
    """
    target = TRANSITIONS[state].get(event)
    if target is None:
        return None
    unasked = event is TaskEvent.ANSWERED and data.ask is None
    repeated = event is TaskEvent.ASKED and _answer_on_its_way(snapshot.ask, data) is not None
    return state if unasked or repeated else target


def _answer_on_its_way(ask: Ask | None, data: TaskData) -> Ask | None:
    """What the producer asks, if it has asked it before, and does not have the answer yet: the answer stands."""
    return ask if ask is not None and ask.id == data.ask and ask.by is not None and not ask.delivered else None


def _behind(snapshot: Snapshot, event: TaskEvent, data: TaskData) -> TaskState:
    """The state hidden by STALLED or CANCELLING, after the event."""
    if snapshot.before is None:
        return snapshot.state
    target = _target(snapshot, snapshot.before, event, data)
    return target if isinstance(target, TaskState) and target in _MAY_BE_BEHIND else snapshot.before


def _refuse_late(snapshot: Snapshot, event: TaskEvent, data: TaskData) -> None:
    """Refuse what comes too late: the first answer to a question counts, and so does the promise to stop."""
    if event is TaskEvent.CANCEL_REFUSED and snapshot.stop is not None and snapshot.stop.accepted:
        raise MessageError(ErrorCode.BAD_STATE, "the producer has already agreed to stop")
    if data.ask is None or event not in _OF_A_QUESTION or snapshot.state in TERMINAL:
        return
    ask = snapshot.ask
    if ask is None or ask.id != data.ask:
        raise MessageError(ErrorCode.BAD_STATE, f"the task does not ask {data.ask!r}")
    if event is TaskEvent.DELIVERED:
        if ask.by is None or ask.delivered:
            raise MessageError(ErrorCode.BAD_STATE, f"no answer to {data.ask!r} is to be delivered")
        if (data.again or 0) != ask.again:
            raise MessageError(ErrorCode.BAD_STATE, f"{data.ask!r} was asked again, and not answered since")
        return
    if ask.by is not None:
        raise MessageError(ErrorCode.ALREADY_ANSWERED, f"already answered by {ask.by}")
    if ask.expired:
        raise MessageError(ErrorCode.ALREADY_ANSWERED, "the question has expired: it was not answered in time")


def _does_not_fit(snapshot: Snapshot, event: TaskEvent) -> MessageError:
    if snapshot.state in TERMINAL:
        attempt = f"attempt {snapshot.attempt} has ended ({snapshot.state})"
        return MessageError(ErrorCode.TASK_ENDED, f"{event} after the end: {attempt}; a retry begins with task_started")
    return MessageError(ErrorCode.BAD_STATE, f"{event} does not fit a task that is {snapshot.state}")


# --- what each event changes besides the state --------------------------------------------------------------------


def _nothing(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {}


def _announced(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    """An announcement that arrives late adds what is not known yet: the running producer knows better."""
    described = _described(snapshot, data, time)
    if snapshot.state in (TaskState.UNKNOWN, TaskState.QUEUED):
        return described
    return {key: value for key, value in described.items() if getattr(snapshot, key) is None}


def _described(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    keys = ("title", "kind", "heartbeat", "timeout", "stage", "message", "total")
    described = {key: value for key in keys if (value := getattr(data, key)) is not None}
    fields = _kept(data.fields, MAX_FIELDS_BYTES) if isinstance(data.fields, dict) else None
    return described if fields is None else described | {"fields": fields}


def _progress(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    percent, done, total = _newer(data.percent, snapshot.percent), data.done, _newer(data.total, snapshot.total)
    if data.percent is None:  # otherwise the task counts in percent from now on, unless it says `done` as well
        done = _newer(done, snapshot.done)
        if done is not None and (data.done is not None or data.total is not None):
            percent = min(100.0, 100 * done / total) if total else None
    return {
        "percent": percent,
        "done": done,
        "total": total,
        "stage": _newer(data.stage, snapshot.stage),
        "message": _newer(data.message, snapshot.message),
        "rate": data.rate,
        "eta": data.eta,
    }


def _newer(said: _T | None, known: _T | None) -> _T | None:
    return known if said is None else said


def _output(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    first = snapshot.lines if data.first is None else data.first
    return {"lines": first + len(data.lines or ()), "dropped": snapshot.dropped + (data.dropped or 0)}


def _asked(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    answered = _answer_on_its_way(snapshot.ask, data)
    if answered is not None:
        return {"ask": replace(answered, again=answered.again + 1)}
    kind = AskKind.INPUT if data.kind == AskKind.INPUT else AskKind.APPROVE
    return {"ask": Ask(data.ask or "", data.text, kind, data.options, _after(time, data.deadline))}


def _answered(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    if data.ask is None or snapshot.ask is None:
        return {}
    by = data.by or "somebody"
    return {"ask": replace(snapshot.ask, by=by, verb=data.verb, value=_kept(data.value), call=data.call)}


def _delivered(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {} if snapshot.ask is None else {"ask": replace(snapshot.ask, delivered=True)}


def _unasked(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    """The producer no longer waits for an answer."""
    asks = snapshot.ask is not None and snapshot.ask.open
    return {"ask": replace(snapshot.ask, expired=True)} if asks and snapshot.ask is not None else {}


def _cancel_requested(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    if snapshot.stop is not None:
        return {}  # the first request counts, with its deadline
    return {"stop": Stop(data.by, _after(time, data.deadline), data.call)}


def _cancel_accepted(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {"stop": replace(snapshot.stop or Stop(data.by, _after(time, data.deadline)), accepted=True)}


def _cancel_refused(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {"stop": None}


def _completed(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    message = {} if data.message is None else {"message": data.message}
    counts = snapshot.done is not None and snapshot.total is not None and snapshot.done < snapshot.total
    percent = snapshot.percent if counts else 100.0  # its own count remains: 2 of 3 is not everything
    return {"percent": percent, "result": _kept(data.result)} | message


def _failed(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {"error": data.error or data.message, "result": _kept(data.result)}


def _retrying(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    ended = {"rate": None, "ended": time, "error": data.error or data.message, "retry": _after(time, data.delay)}
    return _unasked(snapshot, data, time) | ended


def _cancelled(snapshot: Snapshot, data: TaskData, time: int) -> dict[str, Any]:
    return {"by": data.by or (snapshot.stop.by if snapshot.stop else None), "forced": data.forced}


def _kept(value: Any, limit: int = MAX_RESULT_BYTES) -> Any:
    """A value of the application; None if it is too large for a snapshot."""
    return None if value is None or len(msgspec.json.encode(value)) > limit else value


def _after(time: int, seconds: float | None) -> int | None:
    return None if seconds is None else time + round(seconds * 1000)


_MAY_BE_BEHIND = WORKING | {TaskState.RETRYING}
_OF_A_QUESTION = frozenset((TaskEvent.ANSWERED, TaskEvent.ASK_EXPIRED, TaskEvent.DELIVERED))
_FIELDS = {
    TaskEvent.CREATED: _announced,
    TaskEvent.STARTED: _described,
    TaskEvent.PROGRESS: _progress,
    TaskEvent.OUTPUT: _output,
    TaskEvent.RESUMED: _unasked,
    TaskEvent.ASKED: _asked,
    TaskEvent.ANSWERED: _answered,
    TaskEvent.DELIVERED: _delivered,
    TaskEvent.ASK_EXPIRED: _unasked,
    TaskEvent.CANCEL_REQUESTED: _cancel_requested,
    TaskEvent.CANCEL_ACCEPTED: _cancel_accepted,
    TaskEvent.CANCEL_REFUSED: _cancel_refused,
    TaskEvent.RETRYING: _retrying,
    TaskEvent.COMPLETED: _completed,
    TaskEvent.FAILED: _failed,
    TaskEvent.CANCELLED: _cancelled,
    TaskEvent.TIMED_OUT: _failed,
}
