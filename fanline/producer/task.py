"""A task: what a job reports reaches any number of viewers, and their calls and answers reach the job.

    with fanline.Task("build-42", title="Build") as task:          # in sync code: scripts, Celery, notebooks
        for file in task.track(files, stage="compile"):
            task.log(f"compiling {file}")

    async with fanline.Task("deploy-7") as task:                    # the same names under asyncio and Trio
        if (await task.ask("Deploy?")).approved:
            await task.progress(50, "copying")

Fanline never delays the job and never makes it fail. Everything goes into a bounded buffer, and the exporter, a thread
of its own (fanline/producer/exporter/exporter.py), sends it along with heartbeats, whatever the job is busy with.
"""

import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from fanline.nats.settings import environment_options, given_options
from fanline.producer.calls import TaskCancelled
from fanline.producer.checks import TaskSettings, check_settings
from fanline.producer.exporter.exporter import export
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import CURRENT_TASK, RUNNING, AsyncTask, SyncTask
from fanline.producer.waiting import Body, enter_body, is_cancellation, wait_at_most
from fanline.protocol.nats.options import NatsOptions

_AnyTask = TypeVar("_AnyTask", SyncTask, AsyncTask)


class Task:
    """A task to run, with `with` (which gives a SyncTask) or `async with` (an AsyncTask).

    - `id`: the task's channel is `task:<id>`, which may be given as well; by default a random ID.
    - `fields`: facts of your own about the task, such as `{"contract_type": "lease"}`, which viewers get with its
      snapshot: a JSON object of at most 4 KiB.
    - `attempt`: the number of this run; by default it follows the last run that the server knows.
    - `heartbeat`: seconds of silence after which viewers see the task as stalled. Heartbeats are sent three times as
      often.
    - `timeout`: seconds after which the server ends the task.
    - `nats`: one URL, several separated by commas, or a NatsOptions; by default $FANLINE_NATS, $NATS_URL, or else the
      NATS of the `fanline serve` on this machine. $FANLINE_NATS_CREDS and the like go with a URL.
    - `takes_calls`: the job will take `calls()`. What viewers call before it does waits for it; otherwise `cancel` ends
      the block until then, and other calls are refused.
    - `linger`: seconds after the end of the task within which its buffered events must be stored. The rest is sent a
      last time and may be lost, with a warning. Leaving the block waits no longer than that, and not at all while NATS
      is unreachable.

    The end of the block completes the task. An exception fails it and propagates. Cancellation and Ctrl-C cancel it.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002  # the name that it has everywhere
        *,
        title: str | None = None,
        kind: str | None = None,
        fields: Mapping[str, Any] | None = None,
        attempt: int | None = None,
        heartbeat: float = 10.0,
        timeout: float | None = None,
        nats: str | NatsOptions | None = None,
        linger: float = 5.0,
        takes_calls: bool = False,
    ) -> None:
        task_id = secrets.token_hex(6) if id is None else id.removeprefix("task:") if isinstance(id, str) else id
        options = given_options(nats) if nats else environment_options()
        self._settings = check_settings(
            TaskSettings(task_id, title, kind, attempt, heartbeat, timeout, options, linger, fields, takes_calls)
        )
        self._producer: Producer | None = None
        self._body: Body | None = None
        self._outer: Token[SyncTask | AsyncTask | None] | None = None
        self._running: SyncTask | AsyncTask | None = None

    @property
    def id(self) -> str:
        """What viewers name it by; its channel is `task:ID`."""
        return self._settings.id

    def __reduce__(self) -> tuple[Any, ...]:
        """A task that has not begun: what is unpickled is another run of it."""
        return _task_of, (self._settings,)

    def __getattr__(self, name: str) -> NoReturn:
        text = f"a Task has no {name!r}: enter it first, `with fanline.Task(...) as task:`, and use that `task`"
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
        producer = self._start()
        task = self._enter(AsyncTask(producer))
        self._body = enter_body()
        producer.on_cancel(self._body.cancel_soon)
        return task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._body is not None
        assert self._producer is not None
        try:
            stopped = self._body.leave(error)
        except BaseException as rest:  # the block raised something besides its cancellation
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
            raise RuntimeError(f"task {self.id} is already running: create another Task to run it again")
        self._producer = Producer(self._settings)
        export(self._producer)
        return self._producer

    def _enter(self, task: _AnyTask) -> _AnyTask:
        RUNNING[task], self._running = threading.get_ident(), task
        self._outer = CURRENT_TASK.set(task)
        return task

    def _leave(self, error: BaseException | None) -> Future[None]:
        """Report the end. The future is done when everything is stored, or will not be soon."""
        assert self._producer is not None
        assert self._outer is not None
        producer, self._producer = self._producer, None
        if self._running is not None:
            RUNNING.pop(self._running, None)
        producer.end(error)
        with suppress(ValueError):  # left in a different context than it was entered in
            CURRENT_TASK.reset(self._outer)
        return producer.settled


def _task_of(settings: TaskSettings) -> Task:
    return Task(**settings._asdict())
