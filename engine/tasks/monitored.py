"""One task as its keeper has it: the fold, when its producer was heard, and what is written down of it. No I/O."""

import math

from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.timers import TimerEvent, decide
from fanline.protocol.envelope import Envelope
from fanline.protocol.tasks.events import TaskEvent, event_of
from fanline.protocol.tasks.states import ENGINE_EVENTS, TaskState

CHECKPOINT_SECONDS = 10.0
"""After so long a changed task is written down, whatever has changed."""
CHECKPOINT_EVENTS = 1000
REFRESH_SECONDS = 1800.0
"""After so long a running task is written down anew, so that it is not forgotten while it has nothing to say."""
_LINGER = 10.0  # seconds for which an ended task is kept, since its producer may not have noticed


class MonitoredTask:
    """Times are those of one clock that never goes back, in seconds."""

    def __init__(self, log: TaskFold, epoch: str, now: float, heard: float, *, marked: bool) -> None:
        self.log = log
        self.epoch = epoch
        self.running = self._is_running()
        """Known, and not ended."""
        self.marked = marked
        """Whether it is written down as running."""
        self.too_large = False
        """Whether it can be written down only without its output."""
        self.awaited = 0
        """Offset of our own newest event: until that has come back the fold does not know of it."""
        self._heard = heard
        self._stalled = self._spoke = -math.inf
        self._written = (log.snapshot.state, log.snapshot.attempt)
        self._written_at = now
        self._events = 0
        self._touched = now
        self._dirty_since = now if log.snapshot.state is not TaskState.UNKNOWN else math.inf

    def _is_running(self) -> bool:
        snapshot = self.log.snapshot
        return snapshot.state is not TaskState.UNKNOWN and not snapshot.ended_for_good

    def take(self, envelope: Envelope | None, offset: int, now: float) -> None:
        """The task's next message; None: one that cannot be read."""
        if offset <= self.log.offset:
            return
        taken: Envelope | None = None
        if envelope is None:
            self.log.offset = offset
        else:
            taken = self.log.take(envelope, offset)
        self.running = self._is_running()
        if self.log.snapshot.state is not TaskState.UNKNOWN:
            self._dirty_since = min(self._dirty_since, now)
        self._events += 1
        self._touched = now
        # What does not fit may come from an attempt that is over.
        if taken is not None and event_of(taken) not in ENGINE_EVENTS:
            self._heard = max(self._heard, now)

    def beat(self, now: float) -> None:
        """Its producer says that it lives."""
        self._heard = max(self._heard, now)
        self._spoke = now

    def spare(self, until: float) -> None:
        """Count as heard at a moment that may lie ahead."""
        self._heard = max(self._heard, until)

    def begin_anew(self, epoch: str) -> None:
        """Its stream was made anew."""
        self.epoch = epoch
        self.log.offset = self.awaited = 0

    def verdict(self, caught_up: float, now_ms: int) -> TimerEvent | None:
        """What is to be told of it, if all its messages up to `caught_up` were taken."""
        if self.log.offset < self.awaited or not self.running:
            return None
        verdict = decide(self.log.snapshot, caught_up - self._heard, self._spoke > self._stalled, now_ms)
        if verdict is not None and verdict.event is TaskEvent.STALLED:
            self._stalled = caught_up
        return verdict

    def is_due(self, now: float) -> bool:
        """Whether a checkpoint has to be written."""
        if self._dirty_since == math.inf:
            return self.running and now - self._written_at >= REFRESH_SECONDS and self._heard > self._written_at
        changed = self._written != (self.log.snapshot.state, self.log.snapshot.attempt)
        return changed or self._events >= CHECKPOINT_EVENTS or now - self._dirty_since >= CHECKPOINT_SECONDS

    def written(self, now: float) -> None:
        """A checkpoint of it as it is was written."""
        self._written_at = now
        self._written = (self.log.snapshot.state, self.log.snapshot.attempt)
        self._events = 0
        self._dirty_since = math.inf

    def is_over(self, now: float, retention: float) -> bool:
        """Whether it can be forgotten: some time after its end, or after so many seconds without any sign of life."""
        if self.running:
            return now - max(self._heard, self._touched) > max(retention, 2 * REFRESH_SECONDS)
        return not self.marked and not self.is_due(now) and now - self._touched > _LINGER
