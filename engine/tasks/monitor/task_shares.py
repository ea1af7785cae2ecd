"""The tasks of all shares that this worker holds, and the queues of what has to be done for them. No I/O.

The queues are `to_restore`, `to_save` (entries, and how tasks ended), `to_record`, `to_tell` (timer events) and
`deliveries`. Each has a part of the monitor that empties it at its own pace.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import trio

from fanline.engine.cluster.shares import SHARES, share_of
from fanline.engine.slices import Slices
from fanline.engine.tasks.deliveries import DeliveryQueue
from fanline.engine.tasks.monitor.agenda import Agenda
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.timers import TimerEvent

MAX_WAITING = 5000
"""Messages that may wait for their tasks to be restored; meanwhile no others are taken."""
SLICE_SECONDS = 0.002
"""How long the monitor holds the loop: it is never as urgent as a connection."""


class DueEvent(NamedTuple):
    """A timer event that is due."""

    task: MonitoredTask
    event: TimerEvent
    offset: int
    """What was known of the task when it was decided."""


class TaskShares:
    """Which tasks there are, where they belong, and what waits to be done for each."""

    def __init__(self) -> None:
        self.shares: list[Share | None] = [None] * SHARES
        """Those that this worker holds, by number."""
        self.waiting = 0
        """Messages that wait for their tasks."""
        self.changes = 0
        """Grows with everything that may change the table of running tasks."""
        self.agenda = Agenda()
        self.to_restore: dict[MonitoredTask, None] = {}
        self.to_warm: deque[MonitoredTask] = deque()
        """Cold ones of which the table may show more than their entries say; there is no hurry."""
        self.to_save: dict[MonitoredTask, None] = {}
        self.to_record: dict[MonitoredTask, None] = {}
        self.writing: set[MonitoredTask] = set()
        """Of the last two, those that are being written."""
        self.to_tell: list[DueEvent] = []
        self.deliveries = DeliveryQueue()

    def held(self) -> Iterator[Share]:
        return (share for share in self.shares if share is not None)

    def share_of(self, channel: str) -> Share | None:
        """The share of a task, if this worker holds it."""
        return self.shares[share_of(channel)]

    def add(self, share: Share, task: MonitoredTask) -> None:
        """Monitor a task from now on."""
        share.put(task)
        share.strangers += task.is_stranger
        self.changes += 1
        self.deliveries.note(task.channel, task.snapshot, trio.current_time())

    def find(self, channel: str) -> MonitoredTask | None:
        """A task, if it is monitored here."""
        share = self.share_of(channel)
        return None if share is None else share.find(channel)

    def unrecorded(self) -> set[MonitoredTask]:
        """The tasks that may have no record yet: those that wait for it, and those that no event has announced."""
        found = {*self.to_record, *self.to_save, *self.writing}
        for share in self.held():
            if share.strangers:
                found.update(task for task in share.running.values() if task.is_stranger)
        return found

    @property
    def running(self) -> int:
        """How many tasks run."""
        return sum(len(share.running) for share in self.held())

    @property
    def is_full(self) -> bool:
        """Whether messages have to wait before they are taken."""
        return self.waiting >= MAX_WAITING

    @property
    def is_at_rest(self) -> bool:
        """Whether all shares are ready: else what is not urgent has to wait."""
        return all(share.ready for share in self.held())

    def home(self, task: MonitoredTask) -> Share | None:
        """The share of a task that is still monitored."""
        share = self.share_of(task.channel)
        return share if share is not None and share.find(task.channel) is task else None

    def detach(self, share: Share) -> None:
        """Do nothing more for a share."""
        share.held = False
        if self.shares[share.number] is share:
            self.shares[share.number] = None
        self.changes += 1

    async def clear(self, share: Share) -> None:
        """Forget the tasks of a share that was detached."""
        slices = Slices(SLICE_SECONDS)
        for task in share.tasks():
            self._part_with(share, task)
            await slices.breathe()

    def _part_with(self, share: Share, task: MonitoredTask) -> None:
        task.gone = True
        self._drop_chores(share, task)
        share.strangers -= task.is_stranger
        self.changes += task.running
        share.remove(task)

    def _drop_chores(self, share: Share, task: MonitoredTask) -> None:
        self.waiting -= len(task.pending or ())
        share.unsaved.pop(task, None)
        self.deliveries.drop(task.channel)
        for queue in (self.to_restore, self.to_save, self.to_record):
            queue.pop(task, None)
        self.agenda.drop(task)
