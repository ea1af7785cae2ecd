"""`fanline.fastapi`: what viewers see of a background task."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from fastapi import BackgroundTasks

import fanline
import fanline.fastapi
from tests.integration.queues.jobs.streams import listening
from tests.support.servers.serve import Serve

pytestmark = pytest.mark.process


def report(count: int) -> int:
    task = fanline.current_task()
    assert isinstance(task, fanline.SyncTask)
    for _ in task.track(range(count), stage="write"):
        pass
    return count


async def async_report(count: int) -> int:
    task = fanline.current_task()
    assert isinstance(task, fanline.AsyncTask)
    await task.progress(done=count, total=count, stage="write")
    return count


async def endless() -> None:
    await trio.sleep_forever()


def bad() -> None:
    raise ValueError("bad input")


async def _run(tasks: BackgroundTasks, ended: trio.Event | None = None) -> None:
    """What the server does after the response."""
    await tasks()
    if ended is not None:
        ended.set()


@pytest.mark.parametrize("function", [report, async_report])
async def test_a_background_task_is_a_stream_from_the_request_to_its_end(
    serve: Serve, function: Callable[[int], Any] | Callable[[int], Awaitable[Any]]
) -> None:
    with trio.fail_after(60):
        async with listening(serve.url) as streams:
            tasks = BackgroundTasks()
            task_id = fanline.fastapi.background(tasks, function, 3)
            await streams.wait(task_id, "task_created")
            await _run(tasks)
            assert (await streams.wait(task_id))["result"] == 3
            assert await streams.announced(task_id) == ["started 1", "completed 1"]
            snapshot = await streams.snapshot(task_id)
            assert (snapshot.title, snapshot.kind, snapshot.stage) == (function.__name__, "background", "write")


async def test_a_failure_is_reported_and_remains_the_servers(serve: Serve) -> None:
    with trio.fail_after(60):
        async with listening(serve.url) as streams:
            tasks = BackgroundTasks()
            task_id = fanline.fastapi.background(tasks, bad)
            with pytest.raises(ValueError, match="bad input"):
                await _run(tasks)
            assert (await streams.wait(task_id))["error"] == "ValueError: bad input"


async def test_a_viewer_stops_a_coroutine_which_is_no_error(serve: Serve) -> None:
    with trio.fail_after(60):
        async with listening(serve.url) as streams, trio.open_nursery() as nursery:
            tasks, ended = BackgroundTasks(), trio.Event()
            task_id = fanline.fastapi.background(tasks, endless)
            nursery.start_soon(_run, tasks, ended)
            await streams.wait(task_id, "task_started")
            async with streams.client.task(task_id, by="ann") as task:
                await task.cancel()
            await ended.wait()
            assert (await streams.wait(task_id, "task_cancelled"))["by"] == "ann"
