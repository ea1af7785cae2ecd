"""The example of docs/how-to/celery-progress.md, with a real Celery worker and a real server."""

import logging
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
import trio
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.servers.serve import Serve, running_serve, serve_environ
from tests.test_docs import blocks

ENDS = (TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED)


@cache
def names_of_page() -> dict[str, Any]:
    """The names that the page's code defines. Run once per process: Celery identifies a task by its name."""
    page, _ = (block for block in blocks("python") if block.page.name == "celery-progress.md")
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
        result: AsyncResult[Any] = self.names["resize"].delay(list(pictures))
        return result

    async def events(
        self, result: AsyncResult[Any], *, until: Collection[str] = ENDS, count: int = 1
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """The events of a Celery task, from its start until `count` of those in `until` have come."""
        told: list[tuple[str | None, dict[str, Any]]] = []
        async with fanline.Client(self._serve.url) as client:
            async with client.subscribe(f"task:{result.id}", start=True) as messages:
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
            [*command, f"task:{result.id}"], env=env, capture_stdout=True, capture_stderr=True
        )
        return ended.stdout.decode()


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
    assert [event for event, _ in told[:2]] == [TaskEvent.CREATED, TaskEvent.STARTED]
    assert (told[1][1]["attempt"], told[1][1]["title"]) == (1, "pictures.resize")
    lines = [line for event, data in told if event == TaskEvent.OUTPUT for line in data["lines"]]
    assert lines == ["a.png is done", "b.png is done"]
    newest = [data for event, data in told if event == TaskEvent.PROGRESS][-1]
    assert (newest["done"], newest["total"], newest["stage"]) == (2, 2, "resize")
    assert told[-1][1]["result"] == 2
    assert result.get(timeout=1) == 2
