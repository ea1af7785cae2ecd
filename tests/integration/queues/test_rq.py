"""`fanline.rq`: what viewers see of RQ's jobs, with real workers: one that forks a work horse for each job, one that
spawns it, and one that runs the jobs itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from redis import Redis
from rq import Queue, Retry, SpawnWorker
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus

import fanline.rq
from tests.integration.queues.jobs import rq_jobs
from tests.integration.queues.jobs.streams import Streams, listening
from tests.integration.queues.jobs.worker_process import running_worker
from tests.support.servers.serve import Serve, serve_environ, wait_until


@asynccontextmanager
async def rq_queue(
    serve: Serve, redis: str, directory: Path, kind: str = "fanline.rq.Worker"
) -> AsyncIterator[tuple[Queue, Streams]]:
    command = ["-m", "rq.cli", "worker", "--url", redis, "--worker-class", kind]
    worker = running_worker(
        command, serve_environ(serve.directory), directory / "worker.log", lambda log: "Listening on" in log
    )
    async with worker, listening(serve.url) as streams:
        yield fanline.rq.install(Queue(connection=Redis.from_url(redis))), streams


@pytest.mark.parametrize("kind", ["SimpleWorker", "SpawnWorker"])
async def test_workers_of_other_kinds_report_the_same(serve: Serve, redis: str, tmp_path: Path, kind: str) -> None:
    with trio.fail_after(110):
        async with rq_queue(serve, redis, tmp_path, f"fanline.rq.{kind}") as (queue, streams):
            fine, again = queue.enqueue(rq_jobs.fine, 5), queue.enqueue(rq_jobs.again, retry=Retry(max=1))
            bad = queue.enqueue(rq_jobs.bad)
            assert (await streams.wait(fine.id))["result"] == 5
            assert (await streams.wait(again.id))["result"] == "at last"
            assert await streams.announced(again.id) == ["started 1", "retrying 1", "started 2", "completed 2"]
            assert (await streams.wait(bad.id))["error"] == "ValueError: bad input"
            await _wait_status(bad, JobStatus.FAILED)


def test_a_spawning_worker_that_could_report_nothing_is_refused(redis: str) -> None:
    worker = SpawnWorker(["default"], connection=Redis.from_url(redis))
    with pytest.raises(TypeError, match=r"fanline\.rq\.SpawnWorker"):
        fanline.rq.install(worker)


async def _wait_status(job: Job, status: JobStatus) -> None:
    await wait_until(lambda: job.get_status() == status)


async def test_every_stream_of_rq_ends_in_the_state_that_rq_reports(serve: Serve, redis: str, tmp_path: Path) -> None:
    with trio.fail_after(110):
        async with rq_queue(serve, redis, tmp_path) as (queue, streams):
            fine = queue.enqueue(rq_jobs.fine, 5)
            assert (await streams.wait(fine.id))["result"] == 5
            assert await streams.announced(fine.id) == ["started 1", "completed 1"]
            snapshot = await streams.snapshot(fine.id)
            assert (snapshot.title, snapshot.kind, snapshot.done) == (
                "tests.integration.queues.jobs.rq_jobs.fine",
                "rq",
                5,
            )
            await _wait_status(fine, JobStatus.FINISHED)
            again = queue.enqueue(rq_jobs.again, retry=Retry(max=1))
            assert (await streams.wait(again.id))["result"] == "at last"
            assert await streams.announced(again.id) == ["started 1", "retrying 1", "started 2", "completed 2"]
            assert (await streams.wait(again.id, "task_retrying"))["error"] == "OSError: disk full"
            another = queue.enqueue(rq_jobs.another)
            await streams.wait(another.id)
            assert streams.kinds(another.id)[-2:] == ["started 2", "completed 2"]
            bad = queue.enqueue(rq_jobs.bad)
            assert (await streams.wait(bad.id))["error"] == "ValueError: bad input"
            await _wait_status(bad, JobStatus.FAILED)


async def test_a_work_horse_that_is_killed_or_stopped_is_told_of_by_its_worker(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    with trio.fail_after(110):
        async with rq_queue(serve, redis, tmp_path) as (queue, streams):
            (tmp_path / "seen-0").touch()
            killed = queue.enqueue(rq_jobs.kill, str(tmp_path))
            assert "signal 9" in (await streams.wait(killed.id))["error"]
            (tmp_path / "seen-0").unlink()
            retried = queue.enqueue(rq_jobs.kill, str(tmp_path), retry=Retry(max=1))
            for run, left in ((1, 1), (2, 0)):
                await streams.wait(retried.id, "task_started", count=run)
                (tmp_path / f"seen-{left}").touch()
            await streams.wait(retried.id)
            assert [kind for kind in streams.kinds(retried.id) if kind.startswith(("retr", "fail"))] == [
                "retrying",
                "failed",
            ]
            assert (await streams.snapshot(retried.id)).attempt == 2
            stopped = queue.enqueue(rq_jobs.sleep)
            await streams.wait(stopped.id, "task_output")
            send_stop_job_command(queue.connection, stopped.id)
            await streams.wait(stopped.id, "task_cancelled")
            await _wait_status(stopped, JobStatus.STOPPED)


async def test_a_viewer_cancels_a_job_and_rq_reports_it_as_stopped(serve: Serve, redis: str, tmp_path: Path) -> None:
    """One that reports stops there, even if RQ would retry it; the work horse of another is ended."""
    with trio.fail_after(110):
        async with rq_queue(serve, redis, tmp_path) as (queue, streams):
            functions: tuple[Any, ...] = (rq_jobs.steps, rq_jobs.sleep)
            for function in functions:
                job = queue.enqueue(function, retry=Retry(max=3))
                await streams.wait(job.id, "task_output")
                async with streams.client.task(job.id, by="ann") as task:
                    await task.cancel()
                await streams.wait(job.id, "task_cancelled")
                await _wait_status(job, JobStatus.STOPPED)
                snapshot = await streams.snapshot(job.id)
                assert (snapshot.attempt, snapshot.by) == (1, "ann")
