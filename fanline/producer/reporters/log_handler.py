"""Log records as the output of a task."""

import logging

from fanline.producer.running_task import (
    CURRENT_TASK,
    AsyncTask,
    SyncTask,
    current_task,
    tasks_of_other_threads,
    write_output,
)

_OURS = "fanline"
_log = logging.getLogger(_OURS)


class LogHandler(logging.Handler):
    """Sends formatted records as lines of stderr to `task`, or to the current task (`fanline.current_task`). Those of
    other threads, which know of no task, go to the task of this process, if only one is running, and else to that of
    the `fanline run` around it.

    It never raises into the program. Fanline's own records are left out: sending them could cause more of them.
    """

    def __init__(self, task: SyncTask | AsyncTask | None = None, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._task = task
        self._warned = False

    def emit(self, record: logging.LogRecord) -> None:
        task = self._task or CURRENT_TASK.get() or self._only_task() or current_task()
        if task is None or record.name.partition(".")[0] == _OURS:
            return
        try:
            write_output(task, self.format(record), "stderr")
        except Exception:  # noqa: BLE001  # logging's own rule: reported on stderr if logging.raiseExceptions is set
            self.handleError(record)

    def _only_task(self) -> SyncTask | AsyncTask | None:
        tasks = tasks_of_other_threads()
        if len(tasks) > 1 and not self._warned:
            self._warned = True
            _log.warning(
                "records of a thread that belongs to none of %d running tasks are not reported: "
                "pass LogHandler a task, or run the thread in a copy of the task's context",
                len(tasks),
            )
        return tasks[0] if len(tasks) == 1 else None
