"""`fanline.arq`: what viewers see of arq's jobs, with a real worker."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from arq.connections import ArqRedis
from arq.jobs import Job

from tests.integration.queues.jobs.arq_jobs import with_pool
from tests.integration.queues.jobs.streams import Streams, listening
from tests.integration.queues.jobs.worker_process import running_worker
from tests.support.servers.serve import Serve, serve_environ


class ArqQueue:
    """One queue, with a worker that can be stopped."""

    def __init__(self, url: str, worker: trio.Process, streams: Streams) -> None:
        self.worker = worker
        self.streams = streams
        self._url = url

    async def send(self, name: str, *arguments: Any) -> str:
        async def act(pool: ArqRedis) -> Any:
            return await pool.enqueue_job(name, *arguments)

        return str((await self._do(act)).job_id)

    async def abort(self, job_id: str) -> None:
        async def act(pool: ArqRedis) -> Any:
            return await Job(job_id, pool).abort(timeout=30)

        assert await self._do(act)

    async def _do(self, act: Any) -> Any:
        return await trio.to_thread.run_sync(with_pool, self._url, act)


@asynccontextmanager
async def arq_queue(serve: Serve, redis: str, directory: Path) -> AsyncIterator[ArqQueue]:
    command = ["-m", "arq", "tests.integration.queues.jobs.arq_jobs.WorkerSettings"]
    env = serve_environ(serve.directory) | {"REDIS_URL": redis}
    worker = running_worker(command, env, directory / "worker.log", lambda log: "Starting worker" in log)
    async with worker as process, listening(serve.url) as streams:
        yield ArqQueue(redis, process, streams)


async def test_every_stream_of_arq_ends_as_its_job_does(serve: Serve, redis: str, tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with arq_queue(serve, redis, tmp_path) as queue:
            fine = await queue.send("fine", 5)
            assert (await queue.streams.wait(fine))["result"] == 5
            assert queue.streams.kinds(fine)[-1] == "completed 1"
            snapshot = await queue.streams.snapshot(fine)
            assert (snapshot.title, snapshot.kind, snapshot.done) == ("fine", "arq", 5)
            bad = await queue.send("bad")
            assert (await queue.streams.wait(bad))["error"] == "ValueError: bad input"
            again = await queue.send("again")
            assert (await queue.streams.wait(again))["result"] == "at last"
            assert [kind for kind in queue.streams.kinds(again) if not kind.startswith("created")] == [
                "started 1",
                "retrying 1",
                "started 2",
                "completed 2",
            ]
            assert (await queue.streams.wait(again, "task_retrying"))["delay"] == 0.2


async def test_arq_says_why_a_coroutine_was_cancelled(serve: Serve, redis: str, tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with arq_queue(serve, redis, tmp_path) as queue:
            limited = await queue.send("limited")
            assert "TimeoutError" in (await queue.streams.wait(limited))["error"]
            aborted = await queue.send("sleep")
            await queue.streams.wait(aborted, "task_output")
            await queue.abort(aborted)
            await queue.streams.wait(aborted, "task_cancelled")
            cancelled = await queue.send("sleep")
            await queue.streams.wait(cancelled, "task_output")
            async with queue.streams.client.task(cancelled, by="ann") as task:
                await task.cancel()
            await queue.streams.wait(cancelled, "task_cancelled")
            assert (await queue.streams.snapshot(cancelled)).by == "ann"
            moved = await queue.send("sleep")
            await queue.streams.wait(moved, "task_output")
            queue.worker.send_signal(signal.SIGTERM)
            assert "stopped" in (await queue.streams.wait(moved, "task_retrying"))["error"]
