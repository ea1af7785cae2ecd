"""The table of running tasks: the newest message of the channel `tasks:running`, for whoever wants to see them all."""

from collections.abc import Iterable
from typing import Any

from fanline.engine.tasks.fold import TaskFold

TABLE_CHANNEL = "tasks:running"
TABLE_EVENT = "task_table"
MAX_ROWS = 500


def table(logs: Iterable[TaskFold], rows: int = MAX_ROWS) -> dict[str, Any]:
    """The data of the message: a row per task, what has changed last first; `total` counts those without a row, too."""
    newest = sorted(logs, key=lambda log: log.snapshot.updated or 0, reverse=True)
    return {"tasks": [_row(log) for log in newest[:rows]], "total": len(newest)}


def _row(log: TaskFold) -> dict[str, Any]:
    keys = ("title", "stage", "percent", "eta", "updated", "started")
    known = {key: value for key in keys if (value := getattr(log.snapshot, key)) is not None}
    namespace, _, task_id = log.channel.partition(":")
    row = {"id": task_id, "ns": namespace, "state": log.snapshot.state, "attempt": log.snapshot.attempt}
    return row | known
