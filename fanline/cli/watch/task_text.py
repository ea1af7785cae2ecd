"""A task as text for a person. Pure; no I/O. What it quotes is cleaned where it is printed (terminal.py)."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from fanline.client.task_events import TaskUpdate
from fanline.client.watched_task import wants_value
from fanline.protocol.tasks.estimate import seconds_left
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Ask, Snapshot
from fanline.protocol.tasks.states import TaskState

_LONGEST_VALUE = 200


def duration(seconds: float) -> str:
    """0:07, 12:30, 1:02:03, 2 days, 1:02:03."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


def facts(snapshot: Snapshot, now: int) -> list[str]:
    """The known figures of a task as of `now`, in Unix ms: percent, count, rate, ETA, elapsed time."""
    unit = "/s" if snapshot.done is not None else " %/s"
    left = seconds_left(snapshot.eta, snapshot.updated, now)
    spent = elapsed(snapshot, now)
    count = None if snapshot.done is None else f"{snapshot.done:,.12g}"
    if count is not None and snapshot.total is not None:
        count += f" of {snapshot.total:,.12g}"
    known = (
        None if snapshot.percent is None else f"{snapshot.percent:.0f} %",
        count,
        None if snapshot.rate is None else f"{snapshot.rate:,.3g}{unit}",
        None if left is None else f"ETA {duration(left)}",
        None if spent is None else f"elapsed {duration(spent)}",
    )
    return [fact for fact in known if fact is not None]


def elapsed(snapshot: Snapshot, now: int) -> float | None:
    """Seconds from the start of the attempt to its end, or to `now`; None before the start."""
    return None if snapshot.started is None else max(0, (snapshot.ended or now) - snapshot.started) / 1000


def activity(snapshot: Snapshot) -> str:
    """The stage and the message."""
    return ": ".join(text for text in (snapshot.stage, snapshot.message) if text)


def question(task: str, ask: Ask) -> list[str]:
    """An open question, and the commands that answer it."""
    options = f" ({', '.join(ask.options)})" if ask.options else ""
    answers = ["--input TEXT"] if wants_value(ask) else ["--approve", "--reject"]
    commands = " or ".join(f"`fanline tail {task} {answer}`" for answer in answers)
    return [f"it asks: {ask.text or ask.id}{options}", f"answer with {commands}"]


def sentences(task: str, update: TaskUpdate) -> Iterator[str]:
    """The lines about an update, besides output and progress."""
    snapshot = update.snapshot
    if update.gap is not None:
        yield f"{update.gap}; continuing with the current state of the task"
    if update.new_attempt:
        yield f"attempt {snapshot.attempt} has started; the output above is superseded"
    if update.data.dropped:
        yield f"the producer dropped {update.data.dropped} output lines"
    if update.kind is TaskEvent.ASKED and snapshot.ask is not None:
        yield from question(task, snapshot.ask)
    elif (sentence := _sentence(update)) is not None:
        yield sentence
    elif update.ended and (spent := elapsed(snapshot, snapshot.ended or 0)) is not None:
        yield f"{status(snapshot)} (after {duration(spent)})"
    elif update.state_changed:
        yield status(snapshot)


def status(snapshot: Snapshot) -> str:
    """The state as a sentence."""
    sentence = _SENTENCES.get(snapshot.state)
    return sentence(snapshot) if sentence is not None else _STATES[snapshot.state]


def _sentence(update: TaskUpdate) -> str | None:
    data, who = update.data, update.data.by or "a viewer"
    match update.kind:
        case TaskEvent.ANSWERED if data.ask is None:
            return f"{who} sent input" if data.value is None else f"{who} sent input: {_value(data.value)}"
        case TaskEvent.ANSWERED:
            return f"{who} answered: {_value(data.value)}"
        case TaskEvent.DELIVERED if data.message is not None:
            return f"the producer refused the answer: {data.message}"
        case TaskEvent.ASK_EXPIRED:
            return "the question expired without an answer"
        case TaskEvent.CANCEL_REQUESTED:
            forced = "" if data.deadline is None else f"; it will be ended by force after {data.deadline:g} s"
            return f"{who} asked it to stop{forced}"
        case TaskEvent.CANCEL_ACCEPTED:
            return "the producer is stopping"
        case TaskEvent.CANCEL_REFUSED:
            return f"the producer refused to stop: {data.message or 'no reason given'}"
    return None


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _completed(snapshot: Snapshot) -> str:
    return "completed" if snapshot.result is None else f"completed: {_value(snapshot.result)}"


def _failed(snapshot: Snapshot) -> str:
    return f"failed: {snapshot.error or 'no reason given'}"


def _retrying(snapshot: Snapshot) -> str:
    when = "" if snapshot.retry is None else f" in {duration(max(0, snapshot.retry - (snapshot.ended or 0)) / 1000)}"
    return f"attempt {snapshot.attempt} failed: {snapshot.error or 'no reason given'}; trying again{when}"


def _timed_out(snapshot: Snapshot) -> str:
    return f"timed out: {snapshot.error}" if snapshot.error else "timed out"


def _cancelled(snapshot: Snapshot) -> str:
    by = f" by {snapshot.by}" if snapshot.by else ""
    return f"cancelled{by}{' (forced: the producer did not stop in time)' if snapshot.forced else ''}"


_SENTENCES = {
    TaskState.COMPLETED: _completed,
    TaskState.FAILED: _failed,
    TaskState.TIMED_OUT: _timed_out,
    TaskState.CANCELLED: _cancelled,
    TaskState.RETRYING: _retrying,
}
_STATES = {
    TaskState.UNKNOWN: "not known yet",
    TaskState.QUEUED: "queued",
    TaskState.RUNNING: "running",
    TaskState.PAUSED: "paused",
    TaskState.WAITING_INPUT: "waiting for an answer",
    TaskState.STALLED: "stalled: its producer has gone silent",
    TaskState.CANCELLING: "stopping",
}
