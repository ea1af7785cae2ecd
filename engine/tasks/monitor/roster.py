"""What happens to the tasks of all shares that this worker holds, and what is due for them. No I/O."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.stored import Epoch, Stored
from fanline.engine.clock import unix_ms_of
from fanline.engine.cluster.shares import is_channel
from fanline.engine.cluster.store_clock import StoreClock
from fanline.engine.counters import Counters
from fanline.engine.faults import QUARANTINE_SECONDS, Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import OnRefused, is_mistake
from fanline.engine.tasks.monitor.monitored_task import (
    ANNOUNCEMENTS,
    ON_ITS_WAY,
    RECORD_SECONDS,
    MonitoredTask,
    new_task,
)
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.monitor.task_shares import SLICE_SECONDS, DueEvent, TaskShares
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import event_of
from fanline.protocol.tasks.snapshot import Snapshot

GRACE_SECONDS = 3.0
"""After an outage no producer is missed for this long: producers take their time to come back."""

ReadMessage = Callable[[Stored], Envelope | None]
"""A stored message as it goes to clients; None if it is none: MessageReader.read_stored."""

OnEnded = Callable[[str, Snapshot], None]
"""Called when an attempt of a task has ended; a second time only if the worker that called it was killed, and its
lease does not show yet that it has.
"""


class TaskRoster(TaskShares):
    """`sound`: everything that was said before this moment, by Trio's clock, has been heard."""

    def __init__(
        self,
        namespaces: Namespaces,
        read_message: ReadMessage,
        on_refused: OnRefused,
        clock: StoreClock,
        counters: Counters,
        faults: Faults,
        on_ended: OnEnded = lambda channel, snapshot: None,
    ) -> None:
        super().__init__()
        self.sound = -math.inf
        self._namespaces = namespaces
        self._read_message = read_message
        self._on_refused = on_refused
        self._clock = clock
        self._counters = counters
        self._faults = faults
        self._on_ended = on_ended
        self._grace_until = -math.inf

    # --- faults ---------------------------------------------------------------------------------------------------

    @contextmanager
    def edge(self, task: MonitoredTask, what: str = "it cannot be monitored") -> Iterator[None]:
        """Everything that is done for one task: a fault of ours puts this task into quarantine, and no other."""
        try:
            yield
        except BusError:
            raise
        except Exception:  # noqa: BLE001  # our own fault, which every worker that had the share would meet
            self.set_aside(task, what)

    def set_aside(self, task: MonitoredTask, what: str) -> None:
        """To be called in an `except` block: report it, and do nothing for a task until the quarantine is over."""
        self._faults.report(task.channel, what)
        share, now = self.home(task), trio.current_time()
        if share is not None:
            self._drop_chores(share, task)
            task.set_aside(task.aside_until if task.aside_until > now else now + QUARANTINE_SECONDS)
            self.agenda.plan(task, task.aside_until)

    # --- what happens to tasks ------------------------------------------------------------------------------------

    def take(self, share: Share, epoch: Epoch, stored: Stored) -> None:
        """Take the next message of a share."""
        task = share.find(stored.channel)
        try:
            if task is None:
                self._meet(share, epoch, stored)
            elif stored.position.offset <= task.offset:
                pass
            elif not task.is_warm or task.pending is not None:
                self._put_off(share, task, stored)
            else:
                self.fold(share, task, stored)
        except Exception:  # noqa: BLE001  # our own fault
            if task is None:
                self._faults.report(stored.channel, f"message {stored.position.offset} is left out")
            else:
                self.set_aside(task, f"it cannot be monitored, as message {stored.position.offset} shows")

    def _meet(self, share: Share, epoch: Epoch, stored: Stored) -> None:
        """The first message of a task that is not monitored."""
        if not is_channel(stored.channel):
            return
        envelope = self._read_message(stored)
        event = None if envelope is None else event_of(envelope)
        if event is None:
            return
        if event not in ANNOUNCEMENTS and not share.has_room():
            self._counters.tasks_refused += 1
            return
        task = new_task(stored.channel, epoch, trio.current_time())
        self.add(share, task)
        self._put_off(share, task, stored)

    def _put_off(self, share: Share, task: MonitoredTask, stored: Stored) -> None:
        """Keep a message until its task is restored; one in quarantine will be restored from the store."""
        task.hear(trio.current_time())
        if task.aside_until > trio.current_time():
            return
        task.pending = task.pending or []
        task.pending.append(stored)
        self.waiting += 1
        share.unsaved.setdefault(task, stored.position.offset)
        self.to_restore[task] = None

    def fold(self, share: Share, task: MonitoredTask, stored: Stored) -> None:
        """Fold a message of a task that is warm."""
        now, stored_ms = trio.current_time(), unix_ms_of(stored.position.time)
        self._clock.hear(stored_ms)
        was_stranger, before = task.is_stranger, task.snapshot
        moved = self._advance(task, stored, stored_ms, now)
        share.put(task)
        self.changes += 1
        share.strangers += task.is_stranger - was_stranger
        if task.entry_due:
            self.save_soon(share, task)
        if moved:
            self.deliveries.note(task.channel, task.snapshot, now)
            if task.ended and (not before.ended_for_good or before.attempt != task.snapshot.attempt):
                self._say_ended(share, task)
        if task.pending is None and (moved or task.has_much_to_record or task.scheduled > now + RECORD_SECONDS):
            self.look(task, now)

    def _say_ended(self, share: Share, task: MonitoredTask) -> None:
        """What an earlier holder of the share has said may be folded again: it has not stored everything."""
        if task.folded > share.said.get(namespace_of(task.channel), 0):
            self._on_ended(task.channel, task.snapshot)

    def _advance(self, task: MonitoredTask, stored: Stored, stored_ms: int, now: float) -> bool:
        """A message that breaks the fold is left out, as in every worker."""
        try:
            return task.take(self._read_message(stored), stored.position.offset, stored_ms, now)
        except MessageError as error:
            envelope = self._read_message(stored)
            if envelope is not None and is_mistake(event_of(envelope), error):
                self._on_refused(stored.channel, error)
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report(stored.channel, f"message {stored.position.offset} is left out")
        return False

    def restore_soon(self, task: MonitoredTask) -> None:
        """A task that is cold is needed, or soon will be."""
        if not task.is_warm and task.pending is None and task.aside_until == -math.inf:
            task.pending = []
            self.to_restore[task] = None

    def restored(self, share: Share, task: MonitoredTask) -> None:
        """A task is warm: it may have ended, or be further than its entry said. Fold what has waited for that."""
        if task.running is not (task.channel in share.running):
            share.put(task)
        self.changes += 1
        pending, task.pending = task.pending or [], None
        self.waiting -= len(pending)
        for stored in pending:
            self.take(share, task.epoch, stored)
        self.deliveries.note(task.channel, task.snapshot, trio.current_time())
        self.settled(share, task)

    def save_soon(self, share: Share, task: MonitoredTask) -> None:
        """The entry of a task has to be written, or emptied."""
        share.unsaved.setdefault(task, task.entry_due or task.offset)
        self.to_save[task] = None

    def saved(self, share: Share, task: MonitoredTask, offset: int, *, listed: bool) -> None:
        """The entry of a task shows it as it was at an offset, or is empty."""
        was_stranger = task.is_stranger
        task.entry_written(offset, listed=listed)
        share.strangers += task.is_stranger - was_stranger

    def settled(self, share: Share, task: MonitoredTask) -> None:
        """Everything that was due of a task was stored, but for what has changed since."""
        share.unsaved.pop(task, None)
        if task.pending:
            share.unsaved[task] = task.pending[0].position.offset
        elif task.entry_due:
            self.save_soon(share, task)
        self.look(task, trio.current_time())

    def beat(self, channel: str) -> None:
        """A producer says that it lives."""
        share = self.share_of(channel)
        task = None if share is None else share.find(channel)
        now = trio.current_time()
        if task is not None and task.aside_until < now:
            with self.edge(task):
                task.beat(now)
                self.deliveries.beat(channel, now)
                self.agenda.plan(task, task.next_silence(self._grace_until))

    def grant_grace(self) -> None:
        """Beats and messages may have been lost until now: every producer gets fresh grace."""
        self._grace_until = trio.current_time() + GRACE_SECONDS

    async def begin_epoch(self, namespace: str, epoch: Epoch, *, recreated: bool) -> None:
        """The stream of a namespace is in another epoch. `recreated`: its offsets begin again."""
        slices = Slices(SLICE_SECONDS)
        for share in list(self.held()):
            if recreated:
                share.said.pop(namespace, None)
            for task in share.tasks():
                if namespace_of(task.channel) == namespace and task.epoch != epoch:
                    if recreated:
                        self.waiting -= len(task.pending or ())
                        task.restart(epoch)
                        share.unsaved.pop(task, None)
                    task.epoch = epoch
                await slices.breathe()

    # --- what is due ----------------------------------------------------------------------------------------------

    def look(self, task: MonitoredTask, now: float) -> None:
        """Queue what is due of a task, and plan when to look at it again."""
        share, namespace = self.home(task), self._namespaces.of(task.channel)
        retention, patience = namespace.retention, namespace.stalled_timeout or math.inf
        if task.aside_until > -math.inf:
            self._readmit(task, now)
            return
        if share is None or self._is_forgotten(share, task, now, retention):
            return
        first = min(task.next_silence(self._grace_until), self._clock.moment(task.next_deadline_ms(patience)))
        if first <= now and share.ready:
            event = task.timer_event(self.sound, self._grace_until, self._clock.now(), patience)
            if event is not None:
                task.awaited = ON_ITS_WAY
                self.to_tell.append(DueEvent(task, event, task.offset))
        self.agenda.plan(task, min(max(first, now + 0.1), task.next_chore(now, retention)))

    def _readmit(self, task: MonitoredTask, now: float) -> None:
        """One in quarantine is restored when that is over."""
        if now < task.aside_until:
            self.agenda.plan(task, task.aside_until)
        elif self.home(task) is not None:
            task.aside_until = -math.inf
            self.restore_soon(task)

    def _is_forgotten(self, share: Share, task: MonitoredTask, now: float, retention: float) -> bool:
        """Queue its chores; whether it is no longer monitored."""
        if task.pending is not None:
            return False
        if task.is_record_due(now):
            self._record_soon(share, task)
        elif task.is_over(now, retention):
            return self._forget(share, task)
        elif task.is_entry_missing:
            task.entry_due = max(1, task.offset)
            self.save_soon(share, task)
        elif task.is_cool(now):
            task.is_warm = False
        return False

    def _record_soon(self, share: Share, task: MonitoredTask) -> None:
        if not task.is_warm:
            self.restore_soon(task)
        elif task.ended:
            self.save_soon(share, task)  # the entry goes once it is recorded how the task ended
        else:
            self.to_record[task] = None

    def _forget(self, share: Share, task: MonitoredTask) -> bool:
        if task.listed:  # its entry has to go first
            task.withdrawn = True
            self.save_soon(share, task)
            return False
        self._part_with(share, task)
        return True
