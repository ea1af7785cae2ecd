"""One task as the task monitor sees it: its fold, its producer's signs of life, and its stored state. No I/O.

A task is *warm* while this worker folds it. A task without events for a while is *cold*: only its entry
in the bucket RUNNING is known, which is all that timers need. When a message comes, it is restored from its record.

| what                    | when it is due                                                                     |
|-------------------------|------------------------------------------------------------------------------------|
| timer event             | `timers.decide` says so, while the task runs and no event of ours is on its way    |
| task record             | at once after a change of state or attempt; else RECORD_MESSAGES messages or       |
|                         | RECORD_SECONDS after the first unrecorded one; if there is none, REFRESH_SECONDS   |
|                         | after the last record of a running task whose producer was heard since             |
| entry in RUNNING        | at once after a change of what timers need; REFRESH_SECONDS after the last record, |
|                         | since entries expire; it is emptied after the end                                  |
| cooling                 | recorded, no message for COOL_SECONDS, and nothing waits for its producer          |
| forgetting it, ended    | recorded, no entry, and LINGER_SECONDS after its last message                      |
| forgetting it, a        | no entry, and no sign of it for STRANGER_SECONDS; it is recorded and gets an entry |
| stranger                | when its record is due by age or number, or when it has ended                      |
| forgetting it, running  | no sign of it for its retention                                                    |

A stranger is a task that no event has announced: neither `created` nor `started`. All times are seconds of Trio's
clock, unless a name ends in `_ms`: Unix milliseconds of the store.
"""

import math

import msgspec

from fanline.engine.bus.stored import Epoch, Stored
from fanline.engine.tasks.deliveries import is_undelivered
from fanline.engine.tasks.fold import TaskRecord, advance
from fanline.engine.tasks.output_tail import OutputTail
from fanline.engine.tasks.timers import (
    NEVER,
    NONE,
    Deadlines,
    TimerEvent,
    can_be_heard,
    can_stall,
    decide,
    matters,
    next_deadline,
    translated,
)
from fanline.protocol.envelope import Envelope
from fanline.protocol.tasks.estimate import Estimate
from fanline.protocol.tasks.events import Stream, TaskEvent, event_of
from fanline.protocol.tasks.leniency import understood
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import ENGINE_EVENTS, TERMINAL, TaskState

RECORD_SECONDS = 30.0
RECORD_MESSAGES = 1000
REFRESH_SECONDS = 1800.0
"""A running task whose producer lives is recorded at least this often, so that its record does not expire meanwhile."""
COOL_SECONDS = 120.0
LINGER_SECONDS = 10.0
"""An ended task is kept for this long, since its producer may not have noticed the end."""
STRANGER_SECONDS = 60.0
ON_ITS_WAY = 1 << 62
"""Stands for the offset of an event of ours that is not stored yet."""
ANNOUNCEMENTS = frozenset((TaskEvent.CREATED, TaskEvent.STARTED))
_NOTHING, _NO_ESTIMATE = Snapshot(), Estimate()


class MonitoredTask(msgspec.Struct, eq=False, gc=False):
    """What happens to a task, and what is due because of it. There are very many, so each is small, and the garbage
    collector need not know of them: none refers back to itself.
    """

    channel: str
    epoch: Epoch
    """Epoch of its stream."""
    _stored: float
    """When it was recorded, or monitoring it began."""
    _changed: float = 0.0
    """When its newest message was taken."""
    _heard: float = 0.0
    """When its producer gave its newest sign of life."""
    _beat: float = -math.inf
    _stalled: float = -math.inf
    """Up to when its producer was known to be silent, when it was found stalled."""
    snapshot: Snapshot = _NOTHING
    estimate: Estimate = _NO_ESTIMATE
    output: OutputTail | None = None
    """The newest output, which is not recorded yet."""
    is_warm: bool = False
    folded: int = 0
    """Everything of its channel up to here is in the snapshot, if it is warm."""
    offset: int = 0
    """Everything of its channel up to here is known, but perhaps not folded."""
    deadlines: Deadlines = NONE
    announced: bool = False
    pending: list[Stored] | None = None
    """Messages that wait until it is restored; None: it need not be."""
    awaited: int = 0
    """Offset of our own newest event: until that has come back, the snapshot does not show it."""
    changed_ms: float = 0.0
    """When the store got its newest message."""
    scheduled: float = math.inf
    """When it is to be checked next (agenda.py)."""
    aside_until: float = -math.inf
    """Until when it is in quarantine: nothing is done for it, and then it is restored from what is stored."""
    gone: bool = False
    """Whether this worker no longer monitors it."""
    withdrawn: bool = False
    """Whether it is to be forgotten although it runs."""
    listed: bool = False
    """Whether it has an entry in the bucket RUNNING."""
    entry_due: int = 0
    """Offset of the oldest change that its entry does not show; 0 for none."""
    entry_revision: int = 0
    record_revision: int = 0
    output_recorded: bool = False
    """Whether its record holds output, which is nowhere else."""
    without_output: bool = False
    """Whether its record is too large unless it goes without the output."""
    _recorded_phase: tuple[TaskState, int] = (TaskState.UNKNOWN, 0)
    _dirty_since: float = math.inf
    """Since when the record is out of date."""
    _messages: int = 0
    """Taken since the record."""

    def __lt__(self, other: "MonitoredTask") -> bool:
        return id(self) < id(other)  # any order does, of two that are due at the same moment

    @property
    def running(self) -> bool:
        """Whether it is known and has not ended."""
        state = self.snapshot.state
        return state is not TaskState.UNKNOWN and state not in TERMINAL

    # --- what happens to it ---------------------------------------------------------------------------------------

    def set_aside(self, until: float) -> None:
        """Something about it broke: know nothing of it for a while."""
        self.aside_until, self.is_warm, self.pending, self.output = until, False, None, None

    def begin_cold(self, snapshot: Snapshot, offset: int, deadlines: Deadlines) -> None:
        """It is as an entry says."""
        self.snapshot, self.offset, self.deadlines = snapshot, offset, deadlines
        self._recorded_phase = _phase(snapshot)
        self.listed = True

    def warm(self, record: TaskRecord, stored_ms: int) -> None:
        """Go on from what was recorded at `stored_ms`."""
        before, self.snapshot, self.estimate = self.snapshot, record.snapshot, record.estimate
        if record.offset > self.offset or not self.listed:  # the entry is older than the record, or lost
            self.deadlines = translated(self.snapshot, stored_ms)
            if matters(before, self.snapshot) and (self.running or self.listed):
                self.entry_due = self.entry_due or max(1, record.offset)
        self.is_warm, self.folded = True, record.offset
        self.offset = max(self.offset, record.offset)
        self.announced = self.announced or self.snapshot.state is not TaskState.UNKNOWN
        self._recorded_phase, self.output_recorded = _phase(self.snapshot), not record.output.empty

    def warm_without_record(self) -> None:
        """There is no record: fold everything again, because an entry holds no output."""
        self.is_warm, self.folded = True, 0
        self.snapshot, self.estimate, self.deadlines = _NOTHING, _NO_ESTIMATE, NONE

    def trust_entry(self, snapshot: Snapshot, deadlines: Deadlines) -> None:
        """What the stream still holds does not say that the task ever began: it is as its entry said."""
        self.snapshot, self.deadlines = snapshot, deadlines

    def take(self, envelope: Envelope | None, offset: int, stored_ms: int, now: float) -> bool:
        """Fold the task's next message; None: one that cannot be read. Whether that changed what timers need.
        MessageError if it does not fit: it may come from an attempt that is over.
        """
        if offset <= self.folded:
            return False
        self.folded, self.offset = offset, max(self.offset, offset)
        self._changed, self.changed_ms = now, stored_ms
        self._messages += 1
        self.withdrawn = False
        event = None if envelope is None else event_of(envelope)
        if envelope is None or event is None:
            return False
        before = self.snapshot
        self._fold(envelope, event)
        if event not in ENGINE_EVENTS:
            self._heard = max(self._heard, now)
        return self.snapshot is not before and self._change(before, event, envelope.time or 0, stored_ms)

    def _fold(self, envelope: Envelope, event: TaskEvent) -> None:
        _, said = understood(envelope, event)
        data, self.snapshot, self.estimate = advance(self.snapshot, self.estimate, event, said, envelope.time or 0)
        if event is TaskEvent.OUTPUT:
            self.output = self.output or OutputTail()
            stream = data.stream or Stream.STDOUT
            self.output.append(data.lines or (), data.first or 0, self.snapshot.attempt, stream)

    def _change(self, before: Snapshot, event: TaskEvent, time: int, stored_ms: int) -> bool:
        self._dirty_since = min(self._dirty_since, self._changed)
        self.announced = self.announced or event in ANNOUNCEMENTS
        self.deadlines = self.deadlines.after(before, self.snapshot, time, stored_ms)
        changed = matters(before, self.snapshot)
        if changed and not self.is_stranger and not self.entry_due:
            self.entry_due = self.folded
        return changed

    def beat(self, now: float) -> None:
        """Its producer says that it lives."""
        self._heard = self._beat = now
        self.withdrawn = False

    def hear(self, now: float) -> None:
        """Its producer has said something, which is not folded yet."""
        self._heard = max(self._heard, now)

    def restart(self, epoch: Epoch) -> None:
        """Its stream was recreated: offsets begin again, so what waits would hide what comes."""
        self.epoch = epoch
        if self.pending is not None:
            self.pending = []
        self.awaited = self.offset = self.folded = self.entry_due = 0

    def recorded(self, offset: int, phase: tuple[TaskState, int], now: float) -> None:
        """A record of it as it was at an offset was stored."""
        self._recorded_phase, self._stored = phase, now
        self._dirty_since = math.inf if offset == self.folded else now
        self._messages = 0

    def entry_written(self, offset: int, *, listed: bool) -> None:
        """Its entry shows it as it was at an offset, or is empty."""
        self.listed = listed
        self.entry_due = 0 if self.entry_due <= offset else self.entry_due

    # --- what is due ----------------------------------------------------------------------------------------------

    def timer_event(self, sound: float, grace: float, now_ms: float, patience: float = NEVER) -> TimerEvent | None:
        """The timer event that is due. `sound`: everything said before it has been heard; `grace`: up to this moment
        every producer counts as heard; `patience`: seconds after which a stalled task is given up.
        """
        if self.offset < self.awaited or self.pending is not None or not self.running:
            return None
        silence = sound - max(self._heard, grace)
        due = decide(self.snapshot, self.deadlines, silence, self._beat > self._stalled, now_ms, patience)
        if due is not None and due.event is TaskEvent.STALLED:
            self._stalled = sound
        return due

    def next_silence(self, grace: float) -> float:
        """When a timer event may be due because of the producer's silence, or because it was heard again."""
        if not self.running:
            return math.inf
        if self._beat > self._stalled and can_be_heard(self.snapshot):
            return -math.inf
        heartbeat = self.snapshot.heartbeat
        return max(self._heard, grace) + heartbeat if heartbeat is not None and can_stall(self.snapshot) else math.inf

    def next_deadline_ms(self, patience: float = NEVER) -> float:
        """When a deadline passes."""
        return next_deadline(self.snapshot, self.deadlines, patience) if self.running else math.inf

    def is_record_due(self, now: float) -> bool:
        """Whether a task record has to be stored."""
        if self.is_warm and self._dirty_since < math.inf:
            old = now - self._dirty_since >= RECORD_SECONDS
            if self.is_stranger:
                return self.ended or self._messages >= RECORD_MESSAGES or (old and self._messages > 1)
            return old or self._messages >= RECORD_MESSAGES or self._recorded_phase != _phase(self.snapshot)
        return self.is_refresh_due(now)

    def is_refresh_due(self, now: float) -> bool:
        """Whether what is stored of it, though it may be up to date, would expire."""
        heard = self.running and not self.is_stranger and self._heard > self._stored
        return heard and now - self._stored >= REFRESH_SECONDS

    @property
    def has_much_to_record(self) -> bool:
        return self._messages >= RECORD_MESSAGES

    @property
    def ended(self) -> bool:
        return self.snapshot.ended_for_good

    @property
    def is_stranger(self) -> bool:
        """Whether nothing says that the task was ever meant to be."""
        return not (self.announced or self.listed)

    @property
    def is_entry_missing(self) -> bool:
        """Whether it was withdrawn, and has come back."""
        return self.announced and self.running and not (self.listed or self.withdrawn or self.entry_due)

    def is_cool(self, now: float) -> bool:
        """Whether its fold is no longer needed."""
        quiet = self._may_cool and self.pending is None and now - self._changed >= COOL_SECONDS
        return quiet and self.running and self._dirty_since == math.inf and self.listed

    @property
    def _may_cool(self) -> bool:
        """Whether it is warm, and no answer waits for the producer, whose value an entry does not hold."""
        return self.is_warm and not is_undelivered(self.snapshot)

    def is_over(self, now: float, retention: float) -> bool:
        """Whether it can be forgotten, once its entry is empty; `retention`: seconds for which its record is kept."""
        if self.pending is not None:
            return False
        if not self.running:
            return not self.is_record_due(now) and now - self._changed > LINGER_SECONDS
        return now - max(self._heard, self._changed) > self._patience(retention)

    def next_chore(self, now: float, retention: float) -> float:
        """When it has to be looked at again, whatever happens to it."""
        if not self.running:
            first = self._changed + LINGER_SECONDS
        else:
            first = min(max(self._heard, self._changed) + self._patience(retention), self._stored + REFRESH_SECONDS)
            if self._dirty_since < math.inf:
                first = min(first, self._dirty_since + RECORD_SECONDS)
            elif self._may_cool:
                first = min(first, self._changed + COOL_SECONDS)
        return max(first, now + 1)

    def _patience(self, retention: float) -> float:
        """For how long a running task is monitored without a sign of it."""
        return max(retention, 2 * REFRESH_SECONDS) if self.announced else STRANGER_SECONDS


def new_task(channel: str, epoch: Epoch, now: float) -> MonitoredTask:
    """A task of which nothing is known yet, monitored from now on."""
    return MonitoredTask(channel, epoch, now, now, now)


def _phase(snapshot: Snapshot) -> tuple[TaskState, int]:
    return snapshot.state, snapshot.attempt
