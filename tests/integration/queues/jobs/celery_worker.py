"""A real Celery worker, its client, and what viewers see of its tasks."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from celery import Celery
from celery.result import AsyncResult

from tests.integration.queues.jobs.celery_jobs import make_app
from tests.integration.queues.jobs.streams import Streams, listening
from tests.integration.queues.jobs.worker_process import running_worker
from tests.support.servers.serve import Serve, serve_environ, wait_until

WORKER_LOG = "worker.log"
ALONE = ("--without-mingle", "--without-gossip")
"""It does not look for other workers first, which takes a second."""
READY = ("SUCCESS", "FAILURE", "REVOKED")


class CeleryQueue:
    """One queue with a worker."""

    def __init__(self, app: Celery, directory: Path, streams: Streams) -> None:
        self.app = app
        self.directory = directory
        self.streams = streams

    def send(self, name: str, *arguments: Any, **options: Any) -> AsyncResult[Any]:
        return self.app.send_task(f"jobs.{name}", arguments, **options)

    async def wait_begun(self, result: AsyncResult[Any], run: int = 1) -> None:
        """Wait until the job itself runs."""
        await wait_until(lambda: self.has_begun(result, run))

    def has_begun(self, result: AsyncResult[Any], run: int = 1) -> bool:
        return (self.directory / "begun" / f"{result.id}-{run - 1}").exists()

    def revoke(self, result: AsyncResult[Any], *, terminate: bool = False) -> None:
        self.app.control.revoke(result.id, terminate=terminate)

    def state(self, result: AsyncResult[Any]) -> str:
        """What Celery reports. A new object: one that has seen an end does not look again."""
        state: str = self.app.AsyncResult(result.id).state
        return state

    async def wait_state(self, result: AsyncResult[Any], state: str) -> None:
        await wait_until(lambda: self.state(result) == state)


@asynccontextmanager
async def celery_worker(
    serve: Serve, redis: str, directory: Path, *flags: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[trio.Process]:
    """A worker that is ready, and is killed in the end, with its children. `flags`: its pool."""
    app = "tests.integration.queues.jobs.celery_jobs"
    command = ["-m", "celery", "-A", app, "worker", "--loglevel", "INFO", *ALONE]
    own = {"QUEUE_DIRECTORY": str(directory), "REDIS_URL": redis, **(env or {})}
    log = directory / WORKER_LOG
    async with running_worker(
        [*command, *flags], serve_environ(serve.directory) | own, log, lambda log: " ready." in log
    ) as worker:
        yield worker


@asynccontextmanager
async def celery_client(serve: Serve, redis: str, directory: Path) -> AsyncIterator[CeleryQueue]:
    """A queue without a worker."""
    app = make_app(redis)
    (directory / "begun").mkdir()
    async with listening(serve.url) as streams:
        yield CeleryQueue(app, directory, streams)


@asynccontextmanager
async def celery_queue(
    serve: Serve, redis: str, directory: Path, *flags: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[CeleryQueue]:
    """A queue whose worker is ready."""
    async with celery_client(serve, redis, directory) as queue, celery_worker(serve, redis, directory, *flags, env=env):
        yield queue
