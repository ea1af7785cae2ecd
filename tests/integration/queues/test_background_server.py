"""`fanline.fastapi` in an app that a real server serves: what viewers see, whatever becomes of request and client."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio

from tests.integration.queues.jobs.streams import Streams, listening
from tests.integration.queues.jobs.worker_process import running_worker
from tests.support.servers.serve import Serve, serve_environ

pytestmark = pytest.mark.process

APP = "tests.integration.queues.jobs.background_app:app"
_RUNNING = re.compile(r"Running on (http://\S+)")
NOT_RUN = "it was not run: its response was not sent, or a background task before it failed"


class Backend(NamedTuple):
    http: httpx.AsyncClient
    streams: Streams
    directory: Path
    log: Path

    async def post(self, path: str) -> list[str]:
        """The IDs of the tasks of a request."""
        answer = await self.http.post(path)
        return answer.headers["tasks"].split()

    async def leave(self, path: str) -> list[str]:
        """The same of a client that disconnects as soon as it has the beginning of the response."""
        async with self.http.stream("POST", path) as answer:
            return answer.headers["tasks"].split()

    def open(self, gate: str) -> None:
        (self.directory / gate).touch()


@asynccontextmanager
async def backend(serve: Serve, directory: Path, kind: str) -> AsyncIterator[Backend]:
    """The app, served by Hypercorn with this kind of worker."""
    command = ["-m", "hypercorn", APP, "--bind", "127.0.0.1:0", "-k", kind]
    env = serve_environ(serve.directory) | {"QUEUE_DIRECTORY": str(directory)}
    log = directory / "app.log"
    async with running_worker(command, env, log, lambda text: _RUNNING.search(text) is not None):
        found = _RUNNING.search(log.read_text())
        assert found
        async with httpx.AsyncClient(base_url=found[1], timeout=60) as http, listening(serve.url) as streams:
            yield Backend(http, streams, directory, log)


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
async def test_every_background_task_of_a_served_app_ends_as_what_became_of_it(
    serve: Serve, tmp_path: Path, kind: str
) -> None:
    with trio.fail_after(110):
        async with backend(serve, tmp_path, kind) as app:
            several = await app.post("/several")
            assert [(await app.streams.wait(each))["result"] for each in several] == [1, 2, 3]
            for each in (*several, *await app.post("/plain-route")):
                await app.streams.wait(each)
                assert await app.streams.announced(each) == ["started 1", "completed 1"]

            bad, never = await app.post("/bad")
            assert (await app.streams.wait(bad))["error"] == "ValueError: bad input"
            (refused,) = await app.post("/refused")
            for dropped in (never, refused):
                assert (await app.streams.wait(dropped))["error"] == NOT_RUN
                assert "started 1" not in await app.streams.announced(dropped)
            assert "bad input" in app.log.read_text()  # and it remains the server's error


async def test_a_client_that_disconnects_ends_no_task_and_a_viewer_who_cancels_does(
    serve: Serve, tmp_path: Path
) -> None:
    with trio.fail_after(110):
        async with backend(serve, tmp_path, "asyncio") as app:
            (left,) = await app.leave("/gate/left")
            await app.streams.wait(left, "task_started")
            app.open("left")
            assert (await app.streams.wait(left))["result"] == "left"

            (cut,) = await app.leave("/stream")  # the response is cut short, and the task comes after it all the same
            assert (await app.streams.wait(cut))["result"] == 1

            for path in ("/gate/never", "/endless"):
                (cancelled,) = await app.post(path)
                await app.streams.wait(cancelled, "task_started")
                async with app.streams.client.task(cancelled, by="ann") as task:
                    await task.cancel()
                assert (await app.streams.wait(cancelled, "task_cancelled"))["by"] == "ann"
            assert "Traceback" not in app.log.read_text()
