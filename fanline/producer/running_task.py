"""A running task, as the job in its block uses it; one class for sync code, one for asyncio and Trio."""

import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Generic, Literal, Self, TypeVar

from fanline.base.task_socket import SOCKET_VARIABLE
from fanline.producer.calls import Answer, AsyncCalls, Call, SyncCalls, TaskCancelled
from fanline.producer.run.producer import Producer
from fanline.producer.sharing.handle import RemoteProducer
from fanline.producer.waiting import CHECKPOINT, Checkpoint, wait

_Returned = TypeVar("_Returned", None, Checkpoint)
_Item = TypeVar("_Item")
AskKindName = Literal["approve", "input"]
StreamName = Literal["stdout", "stderr"]


class _BaseTask(Generic[_Returned]):
    """What both kinds of task have; `_Returned` is what the methods return with which a job reports something."""

    def __init__(self, producer: Producer | RemoteProducer) -> None:
        self._producer = producer

    def __reduce__(self) -> tuple[Any, ...]:
        return self._of_handle, (self._address(), self.id, self.attempt)

    def handle(self) -> Self:
        """The task for another process on this machine, with the same methods; pickling a task makes one, too.

        What it reports becomes part of this run. `ask` and `calls` are for the process that runs the task alone.
        """
        return self._of_handle(self._address(), self.id, self.attempt)

    @classmethod
    def _of_handle(cls, address: str, task_id: str, attempt: int | None) -> Self:
        return cls(RemoteProducer(address, task_id, attempt))

    def _address(self) -> str:
        return self._producer.address if isinstance(self._producer, RemoteProducer) else self._producer.share()

    @property
    def id(self) -> str:
        return self._producer.id

    @property
    def channel(self) -> str:
        """The channel that its viewers join: `task:` and the ID."""
        return self._producer.channel

    @property
    def attempt(self) -> int | None:
        """The number of this run, from 1. None until it is known: without a given number that takes a connection."""
        return self._producer.attempt

    @property
    def cancelled(self) -> bool:
        """Whether a viewer has cancelled the task; always False in a job that takes `calls()` and decides by itself."""
        return self._producer.cancelled is not None

    @property
    def dropped(self) -> int:
        """Output lines that were dropped because there were more than could be sent or buffered."""
        return self._producer.dropped

    def progress(
        self,
        percent: float | None = None,
        message: str | None = None,
        *,
        stage: str | None = None,
        done: float | None = None,
        total: float | None = None,
    ) -> _Returned:
        """Report progress: `percent` from 0 to 100, or `done` of `total`. Only the newest progress in 50 ms is sent.

        Numbers out of range count as the nearest one in it; what is no number is left out, with a warning.
        """
        self._producer.progress(percent, message, stage, done, total)
        return self._returned()

    def log(self, text: object, *, stream: StreamName = "stdout") -> _Returned:
        """Report one or more lines of output on `stream`, "stdout" or "stderr".

        Bytes are decoded as UTF-8, and of other objects it is their `str`; control characters other than tab are
        replaced.
        """
        self._producer.log(text, stream)
        return self._returned()

    def pause(self, message: str | None = None) -> _Returned:
        """Report that the task does nothing until `resume`."""
        self._producer.pause(message)
        return self._returned()

    def resume(self) -> _Returned:
        """Report that the task continues."""
        self._producer.resume()
        return self._returned()

    def result(self, value: Any) -> None:
        """Set the result that viewers see when the task ends: a value of at most 512 KiB as JSON.

        What JSON has no form for is converted (a date to its ISO text, a set or an array to a list, other objects to
        their `str`), and what is too large or refers back to itself is cut, with a warning.
        """
        self._producer.set_result(value)

    def track(
        self,
        iterable: Iterable[_Item],
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
    ) -> Iterator[_Item]:
        """Iterate over the items and report how many are done. `total` defaults to their number, if they have one."""
        if total is None:
            with suppress(Exception):  # TypeError where there is no length, and whatever a length raises
                total = len(iterable)  # type: ignore[arg-type]  # the same
        self.progress(message=message, stage=stage, done=0, total=total)
        for done, item in enumerate(iterable, 1):
            yield item
            self.progress(done=done, total=total)

    def _returned(self) -> _Returned:
        raise NotImplementedError


class SyncTask(_BaseTask[None]):
    """A running task of sync code. It may be used from several threads.

    When a viewer cancels the task, the next `progress`, `log`, `pause`, `resume`, `ask` or step of `track` raises
    TaskCancelled, once.
    """

    def ask(
        self,
        text: str,
        *,
        kind: AskKindName = "approve",
        options: list[str] | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """Ask the viewers, and wait for the first answer. Raises AskExpired after `deadline` seconds without one.

        Raises TypeError or ValueError for a wrong `kind` or `deadline`, RuntimeError while another question is open.
        """
        self._returned()
        answer = self._producer.ask(text, kind, options, deadline)
        try:
            return answer.result()
        except TaskCancelled:
            self._producer.take_cancellation()
            raise
        finally:
            self._producer.end_ask(answer)

    def calls(self) -> Iterator[Call]:
        """The calls of viewers, including `cancel`, until the task ends. Each must be answered or refused."""
        return SyncCalls(self._producer.open_calls())

    def _returned(self) -> None:
        cancellation = self._producer.take_cancellation()
        if cancellation is not None:
            raise cancellation


class AsyncTask(_BaseTask[Checkpoint]):
    """A running task under asyncio or Trio. What `progress`, `log`, `pause` and `resume` return may be awaited.

    When a viewer cancels the task, the block of its `async with` is cancelled and ends with TaskCancelled.
    """

    async def ask(
        self,
        text: str,
        *,
        kind: AskKindName = "approve",
        options: list[str] | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """Ask the viewers, and wait for the first answer. Raises AskExpired after `deadline` seconds without one.

        Raises TypeError or ValueError for a wrong `kind` or `deadline`, RuntimeError while another question is open.
        """
        answer = self._producer.ask(text, kind, options, deadline)
        try:
            return await wait(answer)
        finally:
            self._producer.end_ask(answer)

    def calls(self) -> AsyncIterator[Call]:
        """The calls of viewers, including `cancel`, until the task ends. Each must be answered or refused."""
        return AsyncCalls(self._producer.open_calls())

    def _returned(self) -> Checkpoint:
        return CHECKPOINT


CURRENT_TASK: ContextVar[SyncTask | AsyncTask | None] = ContextVar("fanline_task", default=None)


RUNNING: dict[SyncTask | AsyncTask, int] = {}
"""The tasks whose blocks this process is in, and the threads that entered them."""


def current_task() -> SyncTask | AsyncTask | None:
    """The task of the innermost block around the caller; outside of any, that of the `fanline run` which has started
    this program, and None if there is none.

    A new thread sees no block, unless it runs in a copy of the caller's context. The task of a `fanline run` is not
    this program's: it takes what is reported and asked, but what viewers call goes to `fanline run` itself.
    """
    task = CURRENT_TASK.get()
    if task is not None or SOCKET_VARIABLE not in os.environ:
        return task
    from fanline.producer.outer_task import outer_task

    return outer_task()


def tasks_of_other_threads() -> list[SyncTask | AsyncTask]:
    """The running tasks of this process for which the calling thread may work without knowing it."""
    here = threading.get_ident()
    return [task for task, thread in list(RUNNING.items()) if thread != here and not task._producer.is_copy]  # noqa: SLF001  # the same unit


def write_output(task: SyncTask | AsyncTask, text: str, stream: StreamName) -> None:
    """`task.log` without TaskCancelled, for code that writes on the job's behalf and without its knowledge."""
    task._producer.log(text, stream)  # noqa: SLF001  # the same unit
