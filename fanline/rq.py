"""Every job of RQ is a stream, after one line in the worker and one where jobs are queued:

    rq worker --worker-class fanline.rq.Worker          # or fanline.rq.install(worker)

    queue = fanline.rq.install(Queue(connection=redis))  # jobs are `queued` until a worker has them

The stream of a job is `task:<job ID>`. A worker forks a process for each job, the work horse. The horse reports what
the job does and how it ended; the worker itself reports what became of a job whose horse was killed or stopped.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import rq
from rq.command import send_stop_job_command
from rq.job import Job, Retry
from rq.worker.base import BaseWorker

from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled, TaskRetrying
from fanline.protocol.nats.options import NatsOptions
from fanline.queues.job_run import STOP_SECONDS, JobRun
from fanline.queues.job_streams import JobStreams

WAIT_SECONDS = 2.0
"""How long at most a worker waits until it is stored that a job's attempt has failed, before the next one may begin."""
_Worker = TypeVar("_Worker", bound=BaseWorker)


@overload
def install(
    target: rq.Queue,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    nats: str | NatsOptions | None = None,
) -> rq.Queue: ...


@overload
def install(
    target: _Worker,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    nats: str | NatsOptions | None = None,
) -> _Worker: ...


def install(
    target: rq.Queue | BaseWorker,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    nats: str | NatsOptions | None = None,
) -> rq.Queue | BaseWorker:
    """Make every job that this queue is given, or that this worker runs, a stream: `task:<prefix><job ID>`. Returns the
    same queue or worker. A SpawnWorker's jobs run where its class is all that is known: a subclass installs itself in
    its `__init__`, as `fanline.rq.SpawnWorker` does.

    - `skip`: patterns of names of functions that have no stream, such as `metrics.*`.
    - `results`: whether viewers get the return values.
    - `nats`: as for `fanline.Task`.
    """
    streams = JobStreams("rq", prefix=prefix, skip=skip, results=results, nats=nats)
    if type(target) is rq.SpawnWorker:
        raise TypeError(
            "a SpawnWorker runs each job in a new process, which knows the class alone: use fanline.rq.SpawnWorker"
        )
    if isinstance(target, rq.Queue):
        _announce_jobs_of(target, streams)
    else:
        _WorkerStreams(target, streams)
    return target


class _Installed:
    """A worker with the line done."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        assert isinstance(self, BaseWorker)
        install(self)


class Worker(_Installed, rq.Worker):
    """RQ's worker: `rq worker --worker-class fanline.rq.Worker`."""


class SimpleWorker(_Installed, rq.SimpleWorker):
    """RQ's worker that runs the jobs itself."""


class SpawnWorker(_Installed, rq.SpawnWorker):
    """RQ's worker that starts a new process for each job, which creates a worker of this class again."""


def _announce_jobs_of(queue: rq.Queue, streams: JobStreams) -> None:
    """Whatever way a job comes in, it passes one of these two, as does a retry."""
    for name in ("_enqueue_job", "schedule_job"):
        setattr(queue, name, _announcing(getattr(queue, name), streams))


def _announcing(enqueue: Callable[..., Job], streams: JobStreams) -> Callable[..., Job]:
    def announced(job: Job, *arguments: Any, **options: Any) -> Job:
        if streams.covers(_name(job)):
            streams.announce(job.id, _name(job))
        return enqueue(job, *arguments, **options)

    return announced


class _WorkerStreams:
    """Stands in for the methods by which a worker runs a job, and decides what becomes of it."""

    def __init__(self, worker: BaseWorker, streams: JobStreams) -> None:
        self._worker = worker
        self._streams = streams
        self._run: JobRun | None = None  # of this process; a worker runs one job at a time
        self._original: dict[str, Callable[..., Any]] = {}
        for name in ("perform_job", "handle_job_success", "handle_job_retry", "handle_job_failure"):
            self._original[name] = getattr(worker, name)
            setattr(worker, name, getattr(self, f"_{name}"))

    def _perform_job(self, job: Job, *arguments: Any, **options: Any) -> Any:
        perform = self._original["perform_job"]
        if not self._streams.covers(_name(job)):
            return perform(job, *arguments, **options)
        self._run = run = self._streams.begin(job.id, _name(job))
        if run is None:
            return perform(job, *arguments, **options)
        run.on_cancel(TaskCancelled, lambda: self._stop_later(job, run))
        try:
            return perform(job, *arguments, **options)
        finally:
            self._run = None
            run.abandon()
            run.leave()

    def _handle_job_success(self, job: Job, *arguments: Any, **options: Any) -> Any:
        answer = self._original["handle_job_success"](job, *arguments, **options)
        if self._run is not None:
            self._run.end(result=job._result)  # noqa: SLF001  # what the job returned, which RQ has not stored itself
        return answer

    def _handle_job_retry(self, job: Job, *arguments: Any, **options: Any) -> Any:
        """The job has returned a Retry."""
        retry = options.get("retry")
        if self._run is not None and isinstance(retry, Retry):
            done = job.number_of_retries or 0
            if done and done >= retry.max:
                self._run.end(FanlineError(f"it was tried again {done} times, and no more is allowed"))
            else:
                self._run.end(TaskRetrying(delay=Retry.get_interval(done, retry.intervals)))
        return self._original["handle_job_retry"](job, *arguments, **options)

    def _handle_job_failure(self, job: Job, *arguments: Any, **options: Any) -> Any:
        """Called in the work horse, within the job's exception, or by the worker if it has lost its horse."""
        error = sys.exc_info()[1] if self._run is not None else FanlineError(options.get("exc_string") or "it was lost")
        if isinstance(error, TaskCancelled):
            self._worker._stopped_job_id = job.id  # noqa: SLF001  # so RQ neither retries it nor calls it failed
        end = self._end_of(job, error)
        if self._run is not None:
            self._run.end(end)
        elif self._streams.covers(_name(job)):
            self._streams.tell(job.id, end, wait_seconds=WAIT_SECONDS)
        return self._original["handle_job_failure"](job, *arguments, **options)

    def _end_of(self, job: Job, error: BaseException | None) -> BaseException | None:
        """What RQ will make of it, by its own rule."""
        if self._worker._stopped_job_id == job.id:  # noqa: SLF001  # RQ asks the same
            return error if isinstance(error, TaskCancelled) else TaskCancelled()
        if not job.should_retry:
            return error
        retrying = TaskRetrying(str(error) if isinstance(error, FanlineError) else None, delay=job.get_retry_interval())
        retrying.__cause__ = error
        return retrying

    def _stop_later(self, job: Job, run: JobRun) -> None:
        """A viewer has cancelled the job, which has some seconds to stop. Then RQ ends its horse."""
        timer = threading.Timer(STOP_SECONDS, self._stop, (job, run))
        timer.daemon = True
        timer.start()

    def _stop(self, job: Job, run: JobRun) -> None:
        if not run.ended:
            send_stop_job_command(self._worker.connection, job.id)


def _name(job: Job) -> str:
    """The function's name; RQ cannot tell it of a job whose data it cannot read."""
    try:
        return job.func_name or job.id
    except Exception:  # noqa: BLE001  # whatever the serializer raises
        return job.id
