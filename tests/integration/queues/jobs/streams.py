"""What viewers of all tasks see, live, while a queue works."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent

ENDS = {TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED, TaskEvent.TIMED_OUT}


class Streams:
    """The events of every task, by its ID, as they come."""

    def __init__(self, client: fanline.Client) -> None:
        self.client = client
        self.ended: dict[str, float] = {}
        """The monotonic time of the last end of each."""
        self._events: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self._grown = trio.Event()

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.client.subscribe("task:*") as messages:
            task_status.started()
            async for message in messages:
                task_id = message.channel.partition(":")[2]
                self._events[task_id].append((message.event or "", message.data or {}))
                if message.event in ENDS:
                    self.ended[task_id] = time.monotonic()
                self._grown.set()
                self._grown = trio.Event()

    async def wait(self, task_id: str, *events: str, count: int = 1) -> dict[str, Any]:
        """The data of the event once `count` of these have come; by default one of any end."""
        wanted = events or ENDS
        while len(found := [data for event, data in self._events[task_id] if event in wanted]) < count:
            await self._grown.wait()
        return found[count - 1]

    async def wait_ends(self, wanted: Callable[[dict[str, float]], bool]) -> None:
        while not wanted(self.ended):
            await self._grown.wait()

    async def titled(self, title: str, count: int) -> list[str]:
        """The IDs of the first tasks of a title."""
        while len(found := [each for each in self._events if self._title(each) == title]) < count:
            await self._grown.wait()
        return found[:count]

    def _title(self, task_id: str) -> str | None:
        return next((data["title"] for _, data in self._events[task_id] if "title" in data), None)

    def kinds(self, task_id: str) -> list[str]:
        """The events of a task without output, progress and their prefix, and each with its attempt."""
        left_out = (TaskEvent.OUTPUT, TaskEvent.PROGRESS)
        told = [(event, data) for event, data in self._events[task_id] if event not in left_out]
        return [f"{event.removeprefix('task_')} {data.get('attempt', '')}".rstrip() for event, data in told]

    async def announced(self, task_id: str) -> list[str]:
        """The same of a task that was announced, without that: it comes from another process or thread than the rest,
        and may be the later one.
        """
        await self.wait(task_id, TaskEvent.CREATED)
        return [kind for kind in self.kinds(task_id) if not kind.startswith("created")]

    async def snapshot(self, task_id: str) -> fanline.Snapshot:
        async with self.client.task(task_id) as task:
            return task.snapshot


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Streams]:
    async with fanline.Client(url) as client, trio.open_nursery() as nursery:
        streams = Streams(client)
        await nursery.start(streams.listen)
        yield streams
        nursery.cancel_scope.cancel()
