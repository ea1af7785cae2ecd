"""Every job of arq is a stream, after one line below the settings of the worker, and one where jobs are queued:

    class WorkerSettings:
        functions = [resize]

    fanline.arq.install(WorkerSettings)

    pool = fanline.arq.install(await create_pool(...))  # jobs are `queued` until a worker has them

The stream of a job is `task:<job ID>`. Only Redis knows what became of a job whose coroutine was cancelled: it was
aborted, it took too long, or the worker shuts down and another one will run it again. So that is looked up afterwards.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial, update_wrapper
from typing import Any

from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import Job
from arq.worker import Function, Retry, RetryJob, func

from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled, TaskRetrying
from fanline.producer.running_task import AsyncTask
from fanline.producer.waiting import is_cancellation, wait_at_most
from fanline.protocol.nats.options import NatsOptions
from fanline.queues.coroutine_run import perform
from fanline.queues.job_run import JobRun
from fanline.queues.job_streams import JobStreams

_Coroutine = Callable[..., Coroutine[Any, Any, Any]]


def install(
    target: Any,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    nats: str | NatsOptions | None = None,
) -> Any:
    """Make every job that these WorkerSettings (a class, or a dict) run, or that this pool (an ArqRedis) is given, a
    stream: `task:<prefix><job ID>`. Returns the same settings or pool.

    - `skip`: patterns of names of functions that have no stream, such as `metrics_*`.
    - `results`: whether viewers get the return values.
    - `nats`: as for `fanline.Task`.
    """
    streams = JobStreams("arq", prefix=prefix, skip=skip, results=results, nats=nats)
    if isinstance(target, ArqRedis):
        target.enqueue_job = partial(_enqueue, streams, target.enqueue_job)  # type: ignore[method-assign]
    elif isinstance(target, dict):
        target |= _WorkerStreams(streams).settings(target)
    else:
        for name, value in _WorkerStreams(streams).settings(vars(target)).items():
            setattr(target, name, value)
    return target


async def _enqueue(
    streams: JobStreams, enqueue: Callable[..., Awaitable[Job | None]], function: str, *arguments: Any, **options: Any
) -> Job | None:
    job = await enqueue(function, *arguments, **options)
    if job is not None and streams.covers(function):  # None: a job of this ID is there already
        streams.announce(job.job_id, function)
    return job


class _WorkerStreams:
    """Wraps what a worker runs, and looks up what became of what was cancelled."""

    def __init__(self, streams: JobStreams) -> None:
        self._streams = streams
        self._undecided: dict[str, JobRun] = {}  # jobs whose coroutine was cancelled, by ID
        self._after_job_end: Callable[[Any], Awaitable[None]] | None = None

    def settings(self, given: Any) -> dict[str, Any]:
        """Those that differ from the given ones."""
        self._after_job_end = given.get("after_job_end")
        functions = [self._function(each) for each in given.get("functions", ())]
        jobs = given.get("cron_jobs") or ()
        cron_jobs = [replace(job, coroutine=self._streamed(job.name, job.coroutine)) for job in jobs]
        return {"functions": functions, "cron_jobs": cron_jobs or None, "after_job_end": self._look_up}

    def _function(self, given: Any) -> Function:
        function = func(given)
        return replace(function, coroutine=self._streamed(function.name, function.coroutine))

    def _streamed(self, name: str, coroutine: Any) -> Any:
        if not self._streams.covers(name):
            return coroutine

        async def streamed(ctx: dict[Any, Any], *arguments: Any, **options: Any) -> Any:
            run = self._streams.begin(ctx["job_id"], name, kind=AsyncTask)
            if run is None:
                return await coroutine(ctx, *arguments, **options)
            try:
                work = partial(coroutine, ctx, *arguments, **options)
                return await perform(run, work, partial(self._end_of, run, ctx["job_id"]))
            finally:
                run.leave()

        return update_wrapper(streamed, coroutine)

    def _end_of(self, run: JobRun, job_id: str, error: BaseException) -> BaseException | None:
        if is_cancellation(error):
            self._undecided[job_id] = run
            return None
        if not isinstance(error, Retry | RetryJob):
            return error
        retrying = TaskRetrying(delay=(getattr(error, "defer_score", None) or 0) / 1000)
        retrying.__cause__ = error.__cause__ or error.__context__
        return retrying

    async def _look_up(self, ctx: dict[Any, Any]) -> None:
        """After each job, when Redis has what became of it."""
        run = self._undecided.pop(ctx["job_id"], None)
        if run is not None:
            await wait_at_most(run.finish(await _fate(ctx["redis"], ctx["job_id"])), run.linger)
        if self._after_job_end is not None:
            await self._after_job_end(ctx)


async def _fate(redis: ArqRedis, job_id: str) -> BaseException:
    """Of a job whose coroutine was cancelled. One that waits in Redis is run again; otherwise the result says why."""
    if await redis.exists(job_key_prefix + job_id):
        return TaskRetrying("its worker was stopped")
    info = await Job(job_id, redis).result_info()
    if info is not None and isinstance(info.result, BaseException) and not is_cancellation(info.result):
        return info.result
    return TaskCancelled() if info is not None else FanlineError("it was aborted, or took too long")
