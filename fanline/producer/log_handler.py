"""The records of `logging` as output of a task."""

import logging

from fanline.producer.task import AsyncTask, SyncTask, current_task, write_output

_OURS = "fanline"


class LogHandler(logging.Handler):
    """Sends formatted records as lines of stderr to `task`, or to the current task (`fanline.current_task`).

    Never raises into the program. What Fanline itself logs is left out: it would be about what it tells.
    """

    def __init__(self, task: SyncTask | AsyncTask | None = None, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._task = task

    def emit(self, record: logging.LogRecord) -> None:
        task = self._task or current_task()
        if task is None or record.name.partition(".")[0] == _OURS:
            return
        try:
            write_output(task, self.format(record), "stderr")
        except Exception:  # noqa: BLE001  # logging's own rule: told on stderr if logging.raiseExceptions
            self.handleError(record)
