"""One task as the monitor has it: its fold, its producer's signs of life, and what is recorded of it. No I/O.

| what                    | when it is due                                                                     |
|-------------------------|------------------------------------------------------------------------------------|
| timer event             | `timers.decide` says so, while the task runs and no event of ours is on its way    |
| task record             | at once after a change of state or attempt; else RECORD_MESSAGES messages or       |
|                         | RECORD_SECONDS after the first unrecorded one; if there is none, REFRESH_SECONDS   |
|                         | after the last record of a running task whose producer was heard since             |
| listing as running      | the bucket RUNNING lists a task that does not run, or lacks one that does; with    |
|                         | every record of a running one, since entries expire                                |
| forgetting it, ended    | recorded, no longer listed, and LINGER_SECONDS after its last message              |
| forgetting it, running  | no sign of it for its retention                                                    |

All times are seconds of one clock that never goes back.
"""

import math

from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.timers import TimerEvent, decide
from fanline.protocol.envelope import Envelope
from fanline.protocol.tasks.events import TaskEvent, event_of
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import ENGINE_EVENTS, TaskState

RECORD_SECONDS = 10.0
RECORD_MESSAGES = 1000
REFRESH_SECONDS = 1800.0
"""A running task whose producer lives is recorded at least this often, so that its record does not expire meanwhile."""
LINGER_SECONDS = 10.0
"""An ended task is kept for this long, since its producer may not have noticed the end."""


class MonitoredTask:
    """What happens to a task, and what is due because of it.

    `now`: when monitoring it began; `heard`: until when its producer counts as heard, which may lie ahead.
    """

    def __init__(self, fold: TaskFold, epoch: str, now: float, heard: float, *, listed: bool) -> None:
        self.fold = fold
        self.epoch = epoch
        """Epoch of its stream."""
        self.listed = listed
        """Whether the bucket RUNNING has an entry for it."""
        self.without_output = False
        """Whether its record is too large unless it goes without the output."""
        self.awaited = 0
        """Offset of our own newest event: until that has come back, the fold does not know of it."""
        self.running = _is_running(fold.snapshot)
        """Whether it is known and has not ended."""
        self._signs = SignsOfLife(heard)
        self._record = RecordState(fold.snapshot, now)
        self._changed = now  # when its newest message was taken

    # --- what happens to it ---------------------------------------------------------------------------------------

    def take(self, envelope: Envelope | None, offset: int, now: float) -> None:
        """Fold the task's next message; None: one that cannot be read."""
        if offset <= self.fold.offset:
            return
        folded = None if envelope is None else self.fold.take(envelope, offset)
        self.fold.skip(offset)
        self.running = _is_running(self.fold.snapshot)
        self._record.change(self.fold.snapshot, now)
        self._changed = now
        # A message that does not fit may come from an attempt that is over.
        if folded is not None and event_of(folded) not in ENGINE_EVENTS:
            self._signs.hear(now)

    def beat(self, now: float) -> None:
        """Its producer says that it lives."""
        self._signs.beat(now)

    def grant_grace(self, until: float) -> None:
        """Count its producer as heard until a moment that may lie ahead."""
        self._signs.hear(until)

    def restart(self, epoch: str) -> None:
        """Its stream was recreated."""
        self.epoch = epoch
        self.awaited = 0
        self.fold.restart()

    def recorded(self, now: float) -> None:
        """A record of it as it is was stored."""
        self._record = RecordState(self.fold.snapshot, now, complete=True)

    # --- what is due ----------------------------------------------------------------------------------------------

    def timer_event(self, caught_up: float, now_ms: int) -> TimerEvent | None:
        """The timer event that is due. `caught_up`: all messages stored before it were taken; `now_ms`: Unix ms."""
        if self.fold.offset < self.awaited or not self.running:
            return None
        due = decide(self.fold.snapshot, caught_up - self._signs.heard, self._signs.heard_again, now_ms)
        if due is not None and due.event is TaskEvent.STALLED:
            self._signs.stalled(caught_up)
        return due

    def is_record_due(self, now: float) -> bool:
        """Whether a task record has to be stored."""
        record = self._record
        if record.outdated_since < math.inf:
            return record.is_outdated(self.fold.snapshot, now)
        return self.running and now - record.stored >= REFRESH_SECONDS and self._signs.heard > record.stored

    def is_listing_due(self, record_due: bool) -> bool:
        """Whether its entry in the bucket RUNNING has to be written or removed; `record_due`: whether its record is."""
        return self.running != self.listed or (self.running and record_due)

    def is_over(self, now: float, retention: float) -> bool:
        """Whether it can be forgotten; `retention`: seconds for which its record is kept."""
        if self.running:
            return now - max(self._signs.heard, self._changed) > max(retention, 2 * REFRESH_SECONDS)
        return not self.listed and not self.is_record_due(now) and now - self._changed > LINGER_SECONDS


class SignsOfLife:
    """When a task's producer was heard."""

    def __init__(self, heard: float) -> None:
        self.heard = heard
        """The newest sign of life; it lies ahead while the producer has grace."""
        self._beat = -math.inf
        self._stalled = -math.inf

    def hear(self, moment: float) -> None:
        self.heard = max(self.heard, moment)

    def beat(self, now: float) -> None:
        self.hear(now)
        self._beat = now

    def stalled(self, moment: float) -> None:
        """The task was found stalled by what was known up to a moment."""
        self._stalled = moment

    @property
    def heard_again(self) -> bool:
        """Whether there was a beat since the task stalled."""
        return self._beat > self._stalled


class RecordState:
    """What is recorded of a task, and since when that is out of date.

    A task is new to the monitor with a record that is not `complete`: what was folded after it is not recorded yet.
    """

    def __init__(self, snapshot: Snapshot, now: float, *, complete: bool = False) -> None:
        self.stored = now
        """When it was stored, or when monitoring the task began."""
        self.outdated_since = math.inf if complete or not _is_known(snapshot) else now
        """Infinity: there is nothing to add."""
        self._phase = _phase(snapshot)
        self._messages = 0

    def change(self, snapshot: Snapshot, now: float) -> None:
        """A message was taken."""
        self._messages += 1
        if _is_known(snapshot):
            self.outdated_since = min(self.outdated_since, now)

    def is_outdated(self, snapshot: Snapshot, now: float) -> bool:
        """Whether what has to be added is urgent, much, or old."""
        old = now - self.outdated_since >= RECORD_SECONDS
        return old or self._messages >= RECORD_MESSAGES or self._phase != _phase(snapshot)


def _phase(snapshot: Snapshot) -> tuple[TaskState, int]:
    return snapshot.state, snapshot.attempt


def _is_known(snapshot: Snapshot) -> bool:
    return snapshot.state is not TaskState.UNKNOWN


def _is_running(snapshot: Snapshot) -> bool:
    return _is_known(snapshot) and not snapshot.ended_for_good
