"""One run of a job of a queue: an attempt of its task, from what begins it to what ends it."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from fanline.producer.calls import TaskCancelled
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import CURRENT_TASK, AsyncTask, SyncTask

STOP_SECONDS = 5.0
"""How long a job that a viewer has cancelled may take to stop by itself, before its queue is asked to end it."""


class JobRun:
    """Begins at once, in the thread, greenlet or coroutine of the job, where `fanline.current_task()` is its task from
    then on.

    `leave` belongs there, too; what ends the run may come earlier and from any thread. Only the first end counts. None
    of them raises by itself, or waits for longer than the task lingers.
    """

    def __init__(self, producer: Producer, task: SyncTask | AsyncTask, *, results: bool) -> None:
        self.ended = False
        self._producer = producer
        self._results = results
        self._outer = CURRENT_TASK.set(task)

    @property
    def attempt(self) -> int | None:
        """None while it is not known."""
        return self._producer.attempt

    @property
    def cancelled(self) -> TaskCancelled | None:
        """What a viewer's cancel raises, if there was one."""
        return self._producer.cancelled

    @property
    def linger(self) -> float:
        """Seconds that what was reported may take to be stored."""
        return self._producer.settings.linger

    def on_cancel(self, error: type[TaskCancelled], call: Callable[[], None] | None = None) -> None:
        """A viewer's cancel raises `error` at the job's next report, and calls `call` at once."""
        self._producer.cancellation = error
        if call is not None:
            self._producer.on_cancel(call)

    def finish(self, error: BaseException | None = None, result: Any = None) -> Future[None]:
        """Report how the run ended. The future is done when that is stored, or will not be soon."""
        if not self.ended:
            self.ended = True
            try:
                if result is not None and self._results:
                    self._producer.set_result(result, quietly=True)
            finally:  # a signal handler may raise meanwhile, such as that of a time limit
                self._producer.end(error)
        return self._producer.settled

    def end(self, error: BaseException | None = None, result: Any = None) -> None:
        """The same, and wait."""
        if not self.ended:
            with suppress(TimeoutError):
                self.finish(error, result).result(self.linger)

    def abandon(self) -> None:
        """The run ends here, and another process knows how."""
        if not self.ended:
            self.ended = True
            self._producer.abandon()

    def leave(self) -> None:
        """The job no longer runs in this thread."""
        with suppress(ValueError):  # left in a different context than it was begun in
            CURRENT_TASK.reset(self._outer)
