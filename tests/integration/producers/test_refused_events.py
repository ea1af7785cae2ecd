"""A real job, a real server and its NATS, between which messages are refused or acknowledged late: what viewers get."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace

import fanline
from fanline.producer.exporter import task_publisher
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState
from tests.support.nats.refusing_proxy import Answer, RefusingProxy, refusing_proxy
from tests.support.servers.serve import Serve, running_serve
from tests.support.tasks.stored import SECONDS, StoredTasks, in_thread, served_tasks

WINDOW_SECONDS = 0.2
"""Of de-duplication, in place of two minutes."""


@asynccontextmanager
async def served_through(choose: Callable[[int], Answer]) -> AsyncIterator[tuple[Serve, StoredTasks, RefusingProxy]]:
    """A server, its NATS, and a proxy before that, which `choose` rules."""
    async with running_serve(workers=2) as serve, served_tasks(serve) as nats:
        address = parse_url(serve.nats_url)
        async with refusing_proxy((address.host, address.port), choose) as proxy:
            yield serve, nats, proxy


class Watched:
    """A viewer that is there from the start, and what it gets."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.percents: list[float] = []
        self.kinds: list[str] = []
        self.snapshot = Snapshot()

    async def run(self, url: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with fanline.Client(url) as client, client.task("job") as task:
            task_status.started()
            async for update in task:
                self.lines += [line.text for line in update.lines]
                self.kinds.append(str(update.kind))
                if update.kind == "task_progress":
                    self.percents.append(update.data.percent or 0)
            self.snapshot = task.snapshot


async def watch_and_work(serve: Serve, work: Callable[[], Any]) -> tuple[Watched, Snapshot]:
    """What a viewer sees of a job, and the snapshot of one that comes after the end."""
    url, watched = f"ws://127.0.0.1:{serve.port}/ws", Watched()
    with trio.fail_after(2 * SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(watched.run, url)
            await in_thread(work)
        async with fanline.Client(url) as client, client.task("job") as task:
            return watched, task.snapshot


def report(port: int, producer: NatsOptions) -> None:
    """A job with 100 output events that are in flight together, between others."""
    with fanline.Task(
        "job", nats=replace(producer, servers=(f"nats://127.0.0.1:{port}",)), linger=SECONDS, attempt=1
    ) as task:
        for number in range(100):
            task.log(f"line {number}", stream=("stdout", "stderr")[number % 2])
        task.progress(50, stage="half")
        task.pause("wait")
        task.log("the last line")
        task.resume()
        task.progress(90)


def check(watched: Watched, later: Snapshot) -> None:
    assert Counter(watched.lines) == Counter([*(f"line {number}" for number in range(100)), "the last line"])
    assert watched.lines[-1] == "the last line"
    assert watched.percents == [50, 90]
    others = [kind for kind in watched.kinds if kind != "task_output"]
    assert others == ["task_started", "task_progress", "task_paused", "task_resumed", "task_progress", "task_completed"]
    assert watched.kinds[-1] == "task_completed"
    assert watched.snapshot == later
    assert (later.state, later.lines, later.stage) == (TaskState.COMPLETED, 101, "half")


async def test_whatever_of_100_messages_in_flight_is_refused_each_line_counts_once_and_the_end_is_last() -> None:
    def choose(number: int) -> Answer:
        return Answer(refused=number < 150 and number % 7 == 2)

    async with served_through(choose) as (serve, nats, proxy):
        watched, later = await watch_and_work(serve, lambda: report(proxy.port, serve.producer))
        assert proxy.refused > 15
        check(watched, later)
        stored = [int(envelope["i"].rpartition("-")[2]) for envelope in await nats.stored("job")]
        assert stored != sorted(stored)  # what was refused came later


async def test_events_that_are_stored_twice_since_their_acknowledgements_were_late_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_publisher, "ACK_SECONDS", 2 * WINDOW_SECONDS)
    late = Answer(delay=3 * WINDOW_SECONDS)
    async with served_through(lambda number: late if number < 250 else Answer()) as (serve, nats, proxy):
        config = (await nats.client.api("STREAM.INFO"))["config"]
        await nats.client.api("STREAM.UPDATE", {**config, "duplicate_window": round(WINDOW_SECONDS * 1e9)})
        watched, later = await watch_and_work(serve, lambda: report(proxy.port, serve.producer))
        check(watched, later)
        stored = [envelope["i"] for envelope in await nats.stored("job")]
        assert len(stored) > len(set(stored))  # the faults happened
