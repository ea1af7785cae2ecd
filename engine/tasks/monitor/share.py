"""One share of all tasks, while this worker holds its lease. No I/O."""

import logging

from fanline.engine.tasks.monitor.lease import Lease
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.protocol.channels import namespace_of

MAX_STRANGERS = 1000
"""Tasks of a share that no event has announced; further ones are not monitored."""
_log = logging.getLogger("fanline.monitor")


class Share:
    """The tasks of a share, and what is not stored of them yet."""

    def __init__(self, number: int, lease: Lease) -> None:
        self.number = number
        self.lease = lease
        self.held = True
        """False once the lease is lost or given back."""
        self.behind: dict[str, int] = {}
        """Namespace -> offset up to which its stream was taken, while there are newer messages to be read from it."""
        self.said: dict[str, int] = {}
        """Namespace -> offset up to which earlier holders have said which attempts ended."""
        self.loaded = False
        """Whether the tasks that ran when the share was taken over are known."""
        self.running: dict[str, MonitoredTask] = {}
        """By channel, the one with the oldest change first."""
        self.others: dict[str, MonitoredTask] = {}
        """Those that have ended, or of which nothing is known yet."""
        self.unsaved: dict[MonitoredTask, int] = {}
        """Task -> offset of its oldest message of which the store may know too little."""
        self.strangers = 0
        self._is_full = False

    @property
    def ready(self) -> bool:
        """Whether everything that is stored is known, so that timers can be relied upon."""
        return self.loaded and not self.behind

    def has_room(self) -> bool:
        """Whether one more stranger can be monitored; each time there is no more room, that is logged once."""
        if self.strangers >= MAX_STRANGERS and not self._is_full:
            self._is_full = True
            text = "share %d of the tasks has %d that no event has announced: further ones are not monitored"
            _log.warning(text, self.number, self.strangers)
        self._is_full = self._is_full and self.strangers >= MAX_STRANGERS // 2
        return self.strangers < MAX_STRANGERS

    def find(self, channel: str) -> MonitoredTask | None:
        return self.running.get(channel) or self.others.get(channel)

    def tasks(self) -> list[MonitoredTask]:
        return [*self.running.values(), *self.others.values()]

    def put(self, task: MonitoredTask) -> None:
        """A task has come, or has changed: it is the newest now."""
        self.remove(task)
        (self.running if task.running else self.others)[task.channel] = task

    def remove(self, task: MonitoredTask) -> None:
        if self.running.pop(task.channel, None) is None:
            self.others.pop(task.channel, None)

    def unsaved_since(self, namespace: str) -> int | None:
        """The oldest offset of a namespace that the next holder would have to read; None if there is none."""
        offsets = [offset for task, offset in self.unsaved.items() if namespace_of(task.channel) == namespace]
        return min(offsets, default=None)

    def put_off_since(self, namespace: str) -> int | None:
        """The oldest offset of a namespace whose message waits for its task to be restored; None if there is none."""
        offsets = [
            task.pending[0].position.offset
            for task in self.unsaved
            if task.pending and namespace_of(task.channel) == namespace
        ]
        return min(offsets, default=None)
