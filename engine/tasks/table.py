"""The table of running tasks: the newest message of the channel `tasks:running`, for viewers of all tasks."""

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from fanline.engine.bus.interface import TooLargeError
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.roster import TaskRoster

TABLE_CHANNEL = "tasks:running"
TABLE_EVENT = "task_table"
MAX_ROWS = 500
_PAUSE_SECONDS = 1.0  # at least, between two tables
_REFRESH_SECONDS = 3600.0  # after this even an unchanged table is stored again, before it is too old to be kept


def table(folds: Iterable[TaskFold], rows: int = MAX_ROWS) -> dict[str, Any]:
    """The data of the message: a row per task, the last changed one first; `total` includes tasks without a row."""
    newest = sorted(folds, key=lambda fold: fold.snapshot.updated or 0, reverse=True)
    return {"tasks": [_row(fold) for fold in newest[:rows]], "total": len(newest)}


def _row(fold: TaskFold) -> dict[str, Any]:
    keys = ("title", "stage", "percent", "eta", "updated", "started")
    known = {key: value for key in keys if (value := getattr(fold.snapshot, key)) is not None}
    namespace, _, task_id = fold.channel.partition(":")
    row = {"id": task_id, "ns": namespace, "state": fold.snapshot.state, "attempt": fold.snapshot.attempt}
    return row | known


class TablePublisher:
    """Publishes the table when it has changed, at most once a second.

    `publish` stores the table's data; BusError, TooLargeError.
    """

    def __init__(self, publish: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._publish = publish
        self._published = -math.inf
        self._changes = -1  # those of the roster that the table shows

    async def update(self, roster: TaskRoster) -> None:
        """Publish the table if it is due. BusError."""
        now, changes = trio.current_time(), roster.changes
        pause = _REFRESH_SECONDS if changes == self._changes else _PAUSE_SECONDS
        if now - self._published < pause:
            return
        self._published, self._changes = now, -1  # if it fails it is due again after the pause
        await self._publish_what_fits([task.fold for task in roster if task.running])
        self._changes = changes

    async def _publish_what_fits(self, folds: list[TaskFold]) -> None:
        rows = MAX_ROWS
        while True:
            try:
                return await self._publish(table(folds, rows))
            except TooLargeError:
                rows //= 2
