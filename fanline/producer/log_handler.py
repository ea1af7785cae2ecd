"""Log records as the output of a task."""

import logging

from fanline.producer.running_task import AsyncTask, SyncTask, current_task, write_output

_OURS = "fanline"


class LogHandler(logging.Handler):
    """Sends formatted records as lines of stderr to `task`, or to the current task (`fanline.current_task`).

    It never raises into the program. Fanline's own records are left out: sending them could cause more of them.
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
        except Exception:  # noqa: BLE001  # logging's own rule: reported on stderr if logging.raiseExceptions is set
            self.handleError(record)
