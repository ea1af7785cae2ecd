"""The example of docs/how-to/celery-progress.md, with a real Celery worker and a real server."""

import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import msgspec
import pytest
import trio
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from celery.worker.state import revoked

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.nats.client import connect_nats
from tests.support.serve import Serve, running_serve, serve_environ
from tests.test_docs import blocks

ENDS = (TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED)


@cache
def names_of_page() -> dict[str, Any]:
    """The names that the page's code defines. Run once per process: Celery identifies a task by its name."""
    (page,) = (block for block in blocks("python") if block.page.name == "celery-progress.md")
    names: dict[str, Any] = {"__name__": "pictures"}
    exec(compile(page.code, str(page), "exec", dont_inherit=True), names)
    return names


class Example:
    """The page's code with `convert` replaced, as the worker runs it."""

    def __init__(self, serve: Serve, convert: Callable[[str], None]) -> None:
        self.names = names_of_page()
        self.names["convert"] = convert
        self._serve = serve

    def start(self, *pictures: str) -> AsyncResult[Any]:
        return self.start_as(None, *pictures)

    def start_as(self, task_id: str | None, *pictures: str) -> AsyncResult[Any]:
        result: AsyncResult[Any] = self.names["resize"].apply_async((list(pictures),), task_id=task_id)
        return result

    async def events(
        self, result: AsyncResult[Any], *, until: Collection[str] = ENDS, count: int = 1
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """The events of a Celery task, from its start until `count` of those in `until` have come."""
        told: list[tuple[str | None, dict[str, Any]]] = []
        async with fanline.Client(self._serve.url) as client:
            async with client.subscribe(f"task:celery-{result.id}", start=True) as messages:
                async for message in messages:
                    assert isinstance(message, fanline.Message)
                    told.append((message.event, message.data))
                    if sum(event in until for event, _ in told) == count:
                        break
        return told

    async def tail(self, result: AsyncResult[Any]) -> str:
        """What `fanline tail` prints until the task has ended."""
        command = [sys.executable, "-P", "-m", "fanline", "tail"]
        env = serve_environ(self._serve.directory)
        ended = await trio.run_process(
            [*command, f"task:celery-{result.id}"], env=env, capture_stdout=True, capture_stderr=True
        )
        return ended.stdout.decode()

    async def cancel(self, result: AsyncResult[Any]) -> dict[str, Any]:
        """Ask the producer to stop, as the engine does; returns its answer."""
        call = {"v": 1, "t": "call", "c": f"task:celery-{result.id}", "e": "cancel", "u": "ann", "d": {"by": "ann"}}
        async with connect_nats(self._serve.engine_url) as nats:
            return await nats.ask(f"fanline.ctl.task.celery-{result.id}", msgspec.json.encode(call))


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[None]:
    """One for all tests, since Celery takes 4 s to stop it. The root logger, which it changes, is restored."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    with start_worker(names_of_page()["app"], pool="solo", perform_ping_check=False):
        yield
    root.setLevel(level)
    root.handlers[:] = handlers


@asynccontextmanager
async def running_example(monkeypatch: pytest.MonkeyPatch, convert: Callable[[str], None]) -> AsyncIterator[Example]:
    async with running_serve(workers=1) as serve:
        monkeypatch.setenv("FANLINE_STATE_DIR", str(serve.state_directory))
        monkeypatch.delenv("NATS_URL", raising=False)
        yield Example(serve, convert)


async def state_of(result: AsyncResult[Any], ready: str) -> str:
    """The state of a Celery task once it is `ready`, or after 10 s."""
    with trio.move_on_after(10):
        while result.state != ready:
            await trio.sleep(0.02)  # a result backend sends no events
    return result.state


async def test_progress_log_and_result_of_a_celery_task_reach_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(90):
        async with running_example(monkeypatch, lambda _: None) as example:
            result = example.start("a.png", "b.png")
            told = await example.events(result)
            assert await state_of(result, "SUCCESS") == "SUCCESS"
            assert await example.tail(result) == "a.png is done\nb.png is done\n"
    event, started = told[0]
    assert (event, started["attempt"], started["title"]) == (TaskEvent.STARTED, 1, "Resize 2 pictures")
    lines = [line for event, data in told if event == TaskEvent.OUTPUT for line in data["lines"]]
    assert lines == ["a.png is done", "b.png is done"]
    newest = [data for event, data in told if event == TaskEvent.PROGRESS][-1]
    assert (newest["done"], newest["total"], newest["stage"]) == (2, 2, "resize")
    assert told[-1][1]["result"] == {"pictures": 2}
    assert result.get(timeout=1) == 2


async def test_a_retry_is_a_new_attempt_in_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("disk full")]

    def convert(picture: str) -> None:
        if failures:
            raise failures.pop()

    with trio.fail_after(90):
        async with running_example(monkeypatch, convert) as example:
            told = await example.events(example.start("a.png"), count=2)
    steps = [(event, data.get("attempt")) for event, data in told if event in (*ENDS, TaskEvent.STARTED)]
    assert steps == [
        (TaskEvent.STARTED, 1),
        (TaskEvent.FAILED, 1),
        (TaskEvent.STARTED, 2),
        (TaskEvent.COMPLETED, 2),
    ]
    assert "disk full" in next(data["error"] for event, data in told if event == TaskEvent.FAILED)


async def test_a_viewer_stops_a_celery_task(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def convert(picture: str) -> None:
        begun.set()
        assert picture == "a.png"
        assert go_on.wait(30)

    with trio.fail_after(90):
        async with running_example(monkeypatch, convert) as example:
            result = example.start("a.png", "never begun.png")
            assert await trio.to_thread.run_sync(begun.wait, 30)
            await example.events(result, until=[TaskEvent.STARTED])  # only then is the producer listening
            assert (await example.cancel(result))["t"] == "ok"
            go_on.set()
            told = await example.events(result)
            assert await state_of(result, "REVOKED") == "REVOKED"
    assert (told[-1][0], told[-1][1]["by"]) == (TaskEvent.CANCELLED, "ann")


async def test_viewers_see_that_celery_has_revoked_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(90):
        async with running_example(monkeypatch, lambda _: None) as example:
            revoked.add("doomed")
            told = await example.events(example.start_as("doomed", "a.png"))
    assert (told[-1][0], told[-1][1]["by"]) == (TaskEvent.CANCELLED, "Celery")
    assert TaskEvent.PROGRESS not in [event for event, _ in told]
