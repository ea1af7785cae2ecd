"""Users of a real server who have nothing to do with what goes wrong on it, and who must not notice any of it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import trio

from fanline.loadtest.bench.machine import resident_kb
from tests.support.servers.serve import Serve, running_serve, wait_until
from tests.support.tasks.on_worker import connect_to
from tests.support.tasks.producer import NatsProducer
from tests.support.tasks.viewers import ResumingViewer, has_ended

GOOD = "task:good"
GROWTH_MB = 200
_PAUSE = 0.05


class Bystanders(NamedTuple):
    """The producer of a healthy task, a viewer of it on each worker, and a client of each worker that pings it."""

    serve: Serve
    producer: NatsProducer
    viewers: list[ResumingViewer]
    said: list[str]
    """The producer's output lines that are stored."""
    pongs: Counter[int]
    """Answered pings, by the worker's process id."""


@asynccontextmanager
async def bystanders() -> AsyncIterator[Bystanders]:
    """Whatever happens in the block, the healthy task reaches its viewers whole and in order over the connections they
    had, every worker still answers, and none has died, grown, or logged an error.
    """
    with trio.fail_after(100):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            people = Bystanders(serve, NatsProducer(serve, GOOD), [], [], Counter())
            await _start(people, nursery)
            pids, before = serve.worker_pids(), _resident_mb(serve)
            async with trio.open_nursery() as talking:
                talking.start_soon(_talk, people)
                yield people
                talking.cancel_scope.cancel()
            await _finish(people)
            grown = _resident_mb(serve) - before
            nursery.cancel_scope.cancel()
            errors = serve.stderr_text()
            assert serve.worker_pids() == pids
    print(f"{people.pongs.total()} pings, {len(people.said)} lines, memory grew {grown:.0f} MB")
    for viewer in people.viewers:
        assert (viewer.faults, viewer.gaps, viewer.connections) == ([], 0, 1)
        assert list(viewer.lines.values())[: len(people.said)] == people.said
    assert grown < GROWTH_MB
    assert "Traceback" not in errors, errors
    assert " ERROR " not in errors, errors


async def _start(people: Bystanders, nursery: trio.Nursery) -> None:
    await nursery.start(people.producer.run)
    for pid in people.serve.worker_pids():
        people.viewers.append(ResumingViewer(people.serve, GOOD, worker=pid))
        await nursery.start(people.viewers[-1].run)
        await nursery.start(_ping, people, pid)


async def _finish(people: Bystanders) -> None:
    """End the healthy task for all its viewers, and get one more answer from each worker."""
    answered = people.pongs.copy()
    await people.producer.say("task_completed")
    for viewer in people.viewers:
        await wait_until(partial(has_ended, viewer))
    await wait_until(lambda: all(people.pongs[pid] > answered[pid] for pid in people.serve.worker_pids()))


async def _talk(people: Bystanders) -> None:
    while True:
        line = f"line {len(people.said)}"
        await people.producer.say("task_output", lines=[line])
        people.said.append(line)
        await trio.sleep(_PAUSE)


async def _ping(people: Bystanders, pid: int, *, task_status: trio.TaskStatus[None]) -> None:
    async with connect_to(people.serve, pid) as client:
        task_status.started()
        while True:
            assert (await client.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"
            people.pongs[pid] += 1
            await trio.sleep(_PAUSE)


def _resident_mb(serve: Serve) -> float:
    return resident_kb(tuple(serve.worker_pids())) / 1024
