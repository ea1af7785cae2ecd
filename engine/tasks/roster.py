"""All tasks that this worker monitors, by channel. No I/O."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import trio

from fanline.engine.bus.interface import Stored
from fanline.engine.namespaces import Namespaces
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitored import MonitoredTask
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope

GRACE_SECONDS = 3.0
"""After an outage no producer is missed for this long: producers take their time to come back."""
_log = logging.getLogger("fanline.monitor")

ReadMessage = Callable[[Stored], Envelope | None]
"""A stored message as it goes to clients; None if it is none: MessageReader.read_stored."""


class TaskRoster:
    """Empty while another worker is the monitor."""

    def __init__(self, namespaces: Namespaces) -> None:
        self.changes = 0
        """Grows with everything that may change the table of running tasks."""
        self._namespaces = namespaces
        self._tasks: dict[str, MonitoredTask] = {}
        self._grace_until = -math.inf

    def __iter__(self) -> Iterator[MonitoredTask]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, channel: str) -> bool:
        return channel in self._tasks

    def of(self, channels: Iterable[str]) -> list[MonitoredTask]:
        """The monitored ones of some channels."""
        return [self._tasks[channel] for channel in channels if channel in self._tasks]

    def add(self, fold: TaskFold, epoch: str, *, listed: bool) -> None:
        """Monitor a task from now on; `listed`: whether the bucket RUNNING has an entry for it."""
        now = trio.current_time()
        self._tasks[fold.channel] = MonitoredTask(fold, epoch, now, max(now, self._grace_until), listed=listed)
        self.changes += 1

    def take(self, stored: Stored, read: ReadMessage) -> None:
        """Fold a task's next message. One that breaks the fold is left out and logged."""
        task = self._tasks.get(stored.channel)
        if task is None:
            return
        self.changes += 1
        try:
            task.take(read(stored), stored.position.offset, trio.current_time())
        except Exception:  # noqa: BLE001  # our own fault, which every monitor to come would meet again
            _log.exception("message %d of %s was left out", stored.position.offset, stored.channel)

    def beat(self, channel: str) -> None:
        """A producer says that it lives."""
        task = self._tasks.get(channel)
        if task is not None:
            task.beat(trio.current_time())

    def grant_grace(self) -> None:
        """Beats and messages may have been lost until now: every producer gets fresh grace."""
        self._grace_until = trio.current_time() + GRACE_SECONDS
        for task in self:
            task.grant_grace(self._grace_until)

    def restart(self, namespace: str, epoch: str) -> None:
        """The stream of a namespace was recreated."""
        for channel, task in self._tasks.items():
            if namespace_of(channel) == namespace:
                task.restart(epoch)

    async def forget_finished(self) -> None:
        """Remove the tasks whose monitoring is over."""
        slices = Slices()
        for channel, task in list(self._tasks.items()):
            if task.is_over(trio.current_time(), self._namespaces.of(channel).retention):
                del self._tasks[channel]
                if task.running:  # the table does not show ended ones
                    self.changes += 1
            await slices.breathe()

    def clear(self) -> None:
        """Another worker is the monitor now."""
        self._tasks.clear()
        self.changes += 1
