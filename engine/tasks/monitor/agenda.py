"""When each task has to be checked next: a heap, so that no turn has to check all of them. No I/O."""

import heapq
import math
from collections.abc import Iterator

from fanline.engine.tasks.monitor.monitored_task import MonitoredTask

_SLACK = 1024


class Agenda:
    """Each task has one moment, by Trio's clock. An earlier one replaces it; a later one is found out at that time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, MonitoredTask]] = []
        self._planned = 0

    def plan(self, task: MonitoredTask, moment: float) -> None:
        """Check a task at a moment, unless it is to be checked before that."""
        if moment < task.scheduled:
            self._planned += task.scheduled == math.inf
            task.scheduled = moment
            heapq.heappush(self._heap, (moment, task))
            if len(self._heap) > 2 * self._planned + _SLACK:
                self._tidy()

    def due(self, now: float) -> Iterator[MonitoredTask]:
        """The tasks to be checked now; they have no moment any more."""
        while self._heap and self._heap[0][0] <= now:
            moment, task = heapq.heappop(self._heap)
            if moment == task.scheduled and not task.gone:
                self.drop(task)
                yield task

    def drop(self, task: MonitoredTask) -> None:
        """Do not look at a task."""
        self._planned -= task.scheduled < math.inf
        task.scheduled = math.inf

    def _tidy(self) -> None:
        """Remove what was replaced by an earlier moment, or dropped."""
        self._heap = [(moment, task) for moment, task in self._heap if moment == task.scheduled]
        heapq.heapify(self._heap)
