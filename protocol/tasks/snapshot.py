"""What is known of a task at one moment: the snapshot that viewers begin with, and the engine stores."""

from typing import Any

import msgspec

from fanline.protocol.tasks.events import AskKind, TaskData
from fanline.protocol.tasks.serials import Serials
from fanline.protocol.tasks.states import TERMINAL, TaskState

_PROGRESS = ("percent", "done", "total", "stage", "message", "rate", "eta")
_NOTHING = TaskData()


class Ask(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A question that the producer asked its viewers."""

    id: str
    text: str | None = None
    kind: AskKind = AskKind.APPROVE
    options: list[str] | None = None
    deadline: int | None = None
    """Unix ms at which it expires."""
    by: str | None = None
    """Who answered. The first answer counts; later ones are refused."""
    value: Any = None
    verb: str | None = None
    """With which it was answered: `approve`, `reject` or `input`."""
    call: str | None = None
    """The `call` of the answer that won."""
    again: int = 0
    """How often the producer has asked it again while the answer was on its way."""
    delivered: bool = False
    """Whether the producer has replied to the answer, after it last asked."""
    expired: bool = False

    @property
    def open(self) -> bool:
        """Whether it can still be answered."""
        return self.by is None and not self.expired


class Stop(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A request to stop, from the moment it was made to the end of the task."""

    by: str | None = None
    deadline: int | None = None
    """Unix ms at which the engine ends the task by force."""
    call: str | None = None
    """The `call` of the request."""
    accepted: bool = False


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """All that is known of a task except its output. Times in Unix ms, spans in seconds; None for unknown."""

    state: TaskState = TaskState.UNKNOWN
    attempt: int = 0
    title: str | None = None
    kind: str | None = None
    fields: dict[str, Any] | None = None
    """The application's own, as the newest event that has any gives them."""
    stage: str | None = None
    message: str | None = None
    percent: int | float | None = None
    done: int | float | None = None
    total: int | float | None = None
    rate: float | None = None
    eta: float | None = None
    """Seconds to the end at `updated`, as shown (protocol/tasks/estimate.py)."""
    lines: int = 0
    """Output lines of this attempt so far."""
    dropped: int = 0
    """Output lines that the producer had to leave out."""
    heartbeat: float | None = None
    timeout: float | None = None
    created: int | None = None
    started: int | None = None
    updated: int | None = None
    ended: int | None = None
    before: TaskState | None = None
    """The state to go back to from `stalled`, or from a refused cancel."""
    ask: Ask | None = None
    stop: Stop | None = None
    result: Any = None
    error: str | None = None
    by: str | None = None
    """Who cancelled it."""
    forced: bool = False
    """The engine ended it, because the producer did not do so in time."""
    serials: tuple[Serials, ...] = ()
    """The events of this attempt that were taken, of each producer that numbers them."""
    retry: int | None = None
    """When the next attempt is expected to start, if this one has failed and another will follow."""

    @property
    def ended_for_good(self) -> bool:
        """Whether it has ended, and no other attempt is announced."""
        return self.state in TERMINAL

    @property
    def attempt_ended(self) -> bool:
        """This attempt has ended; perhaps another will follow."""
        return self.ended_for_good or TaskState.RETRYING in (self.state, self.before)


def progress_of(snapshot: Snapshot, said: TaskData = _NOTHING) -> dict[str, Any]:
    """All that is known of the progress, but for what an event has `said` itself. Viewers get both with every progress
    event, so that each one makes those before it superfluous.
    """
    return {key: value for key in _PROGRESS if (value := getattr(snapshot, key)) != getattr(said, key)}


def snapshot_fields(snapshot: Snapshot) -> dict[str, Any]:
    """The plain map that viewers get. Unknown fields are left out; state and attempt are always there."""
    fields: dict[str, Any] = msgspec.to_builtins(snapshot)
    return {"state": str(snapshot.state), "attempt": snapshot.attempt, **fields}
