"""The life of a task as one table: (state, event) -> state. Its rules are in protocol/tasks/fold.py."""

from enum import Enum, StrEnum, auto
from typing import Final, Literal

from fanline.protocol.tasks.events import TaskEvent


class TaskState(StrEnum):
    """The state of a task, as text. `completed`, `failed`, `cancelled` and `timed_out` are final."""

    UNKNOWN = "unknown"  # no event has arrived yet
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING_INPUT = "waiting_input"
    STALLED = "stalled"  # its producer has been silent for longer than it promised
    CANCELLING = "cancelling"  # a stop was requested
    RETRYING = "retrying"  # the attempt has failed, and another will follow
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class _Back(Enum):
    BEFORE = auto()


BEFORE: Final = _Back.BEFORE
"""The target of a transition back to the state that the task had before it was stalled or cancelling."""

TERMINAL = frozenset((TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.TIMED_OUT))

WORKING = frozenset((TaskState.RUNNING, TaskState.PAUSED, TaskState.WAITING_INPUT))
"""Begun, and the producer speaks."""

WAITING = frozenset((TaskState.PAUSED, TaskState.WAITING_INPUT, TaskState.STALLED, TaskState.RETRYING))
"""Begun, but no progress is to be expected."""

SUSPENDED = frozenset((TaskState.STALLED, TaskState.CANCELLING))
"""These hide another state, which goes on behind them, and to which BEFORE leads back."""

ENGINE_EVENTS = frozenset(
    (
        TaskEvent.ANSWERED,
        TaskEvent.DELIVERED,
        TaskEvent.STALLED,
        TaskEvent.HEARD,
        TaskEvent.ASK_EXPIRED,
        TaskEvent.CANCEL_REQUESTED,
        TaskEvent.CANCEL_ACCEPTED,
        TaskEvent.CANCEL_REFUSED,
    )
)
"""Published by the engine on behalf of others, so they are no sign of life from the producer."""

Target = TaskState | Literal[_Back.BEFORE]

_ENDS: dict[TaskEvent, Target] = {
    TaskEvent.COMPLETED: TaskState.COMPLETED,
    TaskEvent.FAILED: TaskState.FAILED,
    TaskEvent.CANCELLED: TaskState.CANCELLED,
    TaskEvent.TIMED_OUT: TaskState.TIMED_OUT,
}
_STOPS: dict[TaskEvent, Target] = {
    TaskEvent.CANCEL_REQUESTED: TaskState.CANCELLING,
    TaskEvent.CANCEL_ACCEPTED: TaskState.CANCELLING,
}
_BEGINS: dict[TaskEvent, Target] = {
    TaskEvent.CREATED: TaskState.QUEUED,
    TaskEvent.STARTED: TaskState.RUNNING,
    TaskEvent.PROGRESS: TaskState.RUNNING,  # a producer may leave out `started`
    TaskEvent.OUTPUT: TaskState.RUNNING,
    TaskEvent.PAUSED: TaskState.PAUSED,
    TaskEvent.ASKED: TaskState.WAITING_INPUT,
    TaskEvent.RETRYING: TaskState.RETRYING,  # it failed before it could report anything
}
_WORKS: dict[TaskEvent, Target] = {
    TaskEvent.PAUSED: TaskState.PAUSED,
    TaskEvent.RESUMED: TaskState.RUNNING,
    TaskEvent.ASKED: TaskState.WAITING_INPUT,
    TaskEvent.STALLED: TaskState.STALLED,
    TaskEvent.RETRYING: TaskState.RETRYING,
    **_STOPS,
    **_ENDS,
}


def _stays(state: TaskState) -> dict[TaskEvent, Target]:
    """The events that change no state in which a producer speaks.

    `created` may come late: who announces a task and who runs it are often two processes.
    """
    reports = (TaskEvent.CREATED, TaskEvent.STARTED, TaskEvent.PROGRESS, TaskEvent.OUTPUT)
    return dict.fromkeys((*reports, TaskEvent.ANSWERED, TaskEvent.DELIVERED), state)


TRANSITIONS: dict[TaskState, dict[TaskEvent, Target]] = {
    TaskState.UNKNOWN: {**_BEGINS, **_ENDS},
    TaskState.QUEUED: {**_BEGINS, **_STOPS, **_ENDS},
    TaskState.RUNNING: {**_stays(TaskState.RUNNING), **_WORKS},
    TaskState.PAUSED: {**_stays(TaskState.PAUSED), **_WORKS, TaskEvent.ASK_EXPIRED: TaskState.PAUSED},
    TaskState.WAITING_INPUT: {
        **_stays(TaskState.WAITING_INPUT),
        **_WORKS,
        TaskEvent.ANSWERED: TaskState.RUNNING,
        TaskEvent.ASK_EXPIRED: TaskState.RUNNING,
    },
    TaskState.STALLED: {
        TaskEvent.HEARD: BEFORE,
        TaskEvent.ANSWERED: TaskState.STALLED,
        TaskEvent.DELIVERED: TaskState.STALLED,
        TaskEvent.ASK_EXPIRED: TaskState.STALLED,
        TaskEvent.RETRYING: TaskState.RETRYING,
        **_STOPS,
        **_ENDS,
    },
    TaskState.CANCELLING: {
        **_stays(TaskState.CANCELLING),
        TaskEvent.PAUSED: TaskState.CANCELLING,
        TaskEvent.RESUMED: TaskState.CANCELLING,
        TaskEvent.ASKED: TaskState.CANCELLING,
        TaskEvent.ASK_EXPIRED: TaskState.CANCELLING,
        TaskEvent.RETRYING: TaskState.CANCELLING,
        TaskEvent.CANCEL_REFUSED: BEFORE,
        **_STOPS,
        **_ENDS,
    },
    TaskState.RETRYING: {TaskEvent.RETRYING: TaskState.RETRYING, **_STOPS, **_ENDS},  # the next attempt starts over
    TaskState.COMPLETED: {},
    TaskState.FAILED: {},
    TaskState.CANCELLED: {},
    TaskState.TIMED_OUT: {},
}
