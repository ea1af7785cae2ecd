"""A task of a job: what it does and says goes to any number of viewers, and what they say comes back.

    with fanline.Task("build-42", title="Build") as task:          # in sync code: scripts, Celery, notebooks
        for file in task.track(files, stage="compile"):
            task.log(f"compiling {file}")

    async with fanline.Task("deploy-7") as task:                    # under asyncio and Trio, the same names
        if (await task.ask("Deploy?")).approved:
            await task.progress(50, "copying")

The job is never held up and never ends because of Fanline: everything goes into a bounded buffer, from which a thread
of its own sends it (fanline/producer/exporter/exporter.py), with signs of life, whatever the job is busy with.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, TypeVar

from fanline.producer.calls import Answer, AskExpired, AsyncCalls, Call, SyncCalls, TaskCancelled
from fanline.producer.checks import TaskSettings, check_settings, environment_url
from fanline.producer.exporter.exporter import send_out
from fanline.producer.producer import Producer
from fanline.producer.waiting import CHECKPOINT, Body, Checkpoint, enter_body, is_cancellation, wait, wait_at_most

_Said = TypeVar("_Said", None, Checkpoint)
_Item = TypeVar("_Item")
AskKindName = Literal["approve", "input"]
StreamName = Literal["stdout", "stderr"]


class _Face(Generic[_Said]):
    """What both kinds of task have; `_Said` is what comes back at once from whatever a job says."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    @property
    def id(self) -> str:
        return self._producer.id

    @property
    def channel(self) -> str:
        """The channel its viewers join: `task:` and the id."""
        return self._producer.channel

    @property
    def attempt(self) -> int | None:
        """The number of this run, from 1; None until it is known, which takes a connection if none was given."""
        return self._producer.attempt

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked the task to stop, and nobody iterates over `calls()` to decide otherwise."""
        return self._producer.cancelled is not None

    @property
    def dropped(self) -> int:
        """Output lines that were left out, since more came than could be sent or kept."""
        return self._producer.dropped

    def progress(
        self,
        percent: float | None = None,
        message: str | None = None,
        *,
        stage: str | None = None,
        done: float | None = None,
        total: float | None = None,
    ) -> _Said:
        """How far it is: `percent` from 0 to 100, or `done` of `total`; of several in 50 ms the newest is sent.

        Raises ValueError or TypeError for what is no progress.
        """
        self._producer.progress(percent, message, stage, done, total)
        return self._said()

    def log(self, text: str | bytes, *, stream: StreamName = "stdout") -> _Said:
        """One or more lines of output. Bytes are read as UTF-8; control characters but tab are replaced.

        `stream`: stdout or stderr.
        """
        self._producer.log(text, stream)
        return self._said()

    def pause(self, message: str | None = None) -> _Said:
        """The task does nothing until `resume`."""
        self._producer.pause(message)
        return self._said()

    def resume(self) -> _Said:
        self._producer.resume()
        return self._said()

    def result(self, value: Any) -> None:
        """What the task has made, for task_completed: a JSON value of at most 512 KiB. TypeError, ValueError."""
        self._producer.set_result(value)

    def track(
        self,
        iterable: Iterable[_Item],
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
    ) -> Iterator[_Item]:
        """The items, one by one, while progress tells how many are done; `total` is their number if they know it."""
        if total is None:
            with suppress(TypeError):
                total = len(iterable)  # type: ignore[arg-type]  # what has no length says so
        self.progress(message=message, stage=stage, done=0, total=total)
        for done, item in enumerate(iterable, 1):
            yield item
            self.progress(done=done, total=total)

    def _said(self) -> _Said:
        raise NotImplementedError


class SyncTask(_Face[None]):
    """A running task of sync code; safe for its threads.

    When a viewer cancels it, the next `progress`, `log`, `pause`, `resume`, `ask` or step of `track` raises
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
        """Ask the viewers, and wait for the first answer; at most `deadline` seconds, then AskExpired."""
        self._said()
        answer = self._producer.ask(text, kind, options, deadline)
        try:
            return answer.result()
        except TaskCancelled:
            self._producer.take_cancellation()
            raise
        finally:
            self._producer.end_ask(answer)

    def calls(self) -> Iterator[Call]:
        """What viewers call, cancel included, until the task ends. Each must be answered or refused."""
        return SyncCalls(self._producer.open_mailbox())

    def _said(self) -> None:
        cancellation = self._producer.take_cancellation()
        if cancellation is not None:
            raise cancellation


class AsyncTask(_Face[Checkpoint]):
    """A running task under asyncio or Trio. What `progress`, `log`, `pause`, `resume` return may be awaited.

    When a viewer cancels it, the block of its `async with` is cancelled and ends with TaskCancelled.
    """

    async def ask(
        self,
        text: str,
        *,
        kind: AskKindName = "approve",
        options: list[str] | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """Ask the viewers, and wait for the first answer; at most `deadline` seconds, then AskExpired."""
        answer = self._producer.ask(text, kind, options, deadline)
        try:
            return await wait(answer)
        finally:
            self._producer.end_ask(answer)

    def calls(self) -> AsyncIterator[Call]:
        """What viewers call, cancel included, until the task ends. Each must be answered or refused."""
        return AsyncCalls(self._producer.open_mailbox())

    def _said(self) -> Checkpoint:
        return CHECKPOINT


_current: ContextVar[SyncTask | AsyncTask | None] = ContextVar("fanline_task", default=None)


def current_task() -> SyncTask | AsyncTask | None:
    """The innermost task whose block we are in, None outside. A thread sees none unless it got our context."""
    return _current.get()


def write_output(task: SyncTask | AsyncTask, text: str, stream: StreamName) -> None:
    """`task.log`, but never TaskCancelled: for code that speaks for the job without its knowledge."""
    task._producer.log(text, stream)  # noqa: SLF001  # the same unit


class Task:
    """A task to be run by `with` (giving a SyncTask) or `async with` (giving an AsyncTask).

    `id`: of the channel `task:<id>`; without one it is made up. `attempt`: the number of this run; without one it
    follows the last run that the server knows. `heartbeat`: seconds after which viewers may call it stalled if it is
    silent; signs of life are sent three times as often. `timeout`: seconds after which the server ends it. `nats`: a
    URL; else $NATS_URL, else the NATS of the `fanline serve` on this machine. `linger`: seconds after its end in which
    what is buffered must be stored; what is not is given up, with a warning. Leaving the block waits as long for that
    at most, and not at all while NATS is away.

    The end of the block completes the task, an exception fails it and goes on; cancellation and Ctrl-C cancel it.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002  # its name everywhere
        *,
        title: str | None = None,
        kind: str | None = None,
        attempt: int | None = None,
        heartbeat: float = 10.0,
        timeout: float | None = None,
        nats: str | None = None,
        linger: float = 5.0,
    ) -> None:
        made_up = secrets.token_hex(6) if id is None else id
        url = nats or environment_url()
        self._settings = check_settings(TaskSettings(made_up, title, kind, attempt, heartbeat, timeout, url, linger))
        self._producer: Producer | None = None
        self._body: Body | None = None
        self._outer: Token[SyncTask | AsyncTask | None] | None = None

    @property
    def id(self) -> str:
        return self._settings.id

    def __getattr__(self, name: str) -> NoReturn:
        text = f"a Task has no {name!r}: enter it first, `with fanline.Task(...) as task:`, and use what that gives"
        raise AttributeError(text)

    def __enter__(self) -> SyncTask:
        return self._enter(SyncTask(self._start()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        settled = self._leave(error)
        if error is None or not is_cancellation(error):
            with suppress(TimeoutError):
                settled.result(self._settings.linger)

    async def __aenter__(self) -> AsyncTask:
        task = self._enter(AsyncTask(self._start()))
        self._body = enter_body()
        task._producer.on_cancel(self._body.cancel_soon)  # noqa: SLF001  # the same unit
        return task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._body is not None
        assert self._producer is not None
        try:
            stopped = self._body.leave(error)
        except BaseException as rest:  # the block ended in more than its cancellation
            self._leave(rest)
            raise
        if stopped:
            error = self._producer.cancelled or TaskCancelled()
        settled = self._leave(error)
        if error is None or not is_cancellation(error):
            await wait_at_most(settled, self._settings.linger)
        if stopped and error is not None:
            raise error

    def _start(self) -> Producer:
        if self._producer is not None:
            raise RuntimeError(f"task {self.id} is already running: make another Task to run it again")
        self._producer = Producer(self._settings)
        send_out(self._producer)
        return self._producer

    def _enter(self, task: "_AnyTask") -> "_AnyTask":
        self._outer = _current.set(task)
        return task

    def _leave(self, error: BaseException | None) -> Future[None]:
        """Tell the end; the future is done when that is stored, or will take too long to wait for it."""
        assert self._producer is not None
        assert self._outer is not None
        producer, self._producer = self._producer, None
        producer.end(error)
        with suppress(ValueError):  # left in another context than it was entered in
            _current.reset(self._outer)
        return producer.settled


_AnyTask = TypeVar("_AnyTask", SyncTask, AsyncTask)

__all__ = ["Answer", "AskExpired", "AsyncTask", "Call", "SyncTask", "Task", "TaskCancelled", "current_task"]
