"""Whoever has nothing to do with what goes wrong on a real server, and must not notice any of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import trio

from fanline.loadtest.bench.machine import resident_kb
from tests.support.serve import Serve, running_serve, wait_until
from tests.support.task_people import Producer, Viewer, connect_to, has_ended

GOOD = "task:good"
PING_SECONDS = 3.0
"""A ping that is answered later means a worker that did nothing else; it is far less as a rule."""
GROWTH_MB = 200
_PAUSE = 0.05


class Bystanders(NamedTuple):
    """Whoever has nothing to do with what goes wrong: a task with a viewer on each worker, and pings to each."""

    serve: Serve
    producer: Producer
    viewers: list[Viewer]
    pings: list[float]
    """Seconds until each was answered."""


@asynccontextmanager
async def bystanders() -> AsyncIterator[Bystanders]:
    """At the end they have noticed nothing, and no worker logged an exception, or grew, or died."""
    with trio.fail_after(100):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            people = Bystanders(serve, Producer(serve, GOOD), [], [])
            await nursery.start(people.producer.run)
            for pid in serve.worker_pids():
                people.viewers.append(Viewer(serve, GOOD, worker=pid))
                await nursery.start(people.viewers[-1].run)
                await nursery.start(_ping, people, pid)
            talking = trio.CancelScope()
            said: list[str] = []
            nursery.start_soon(_talk, people.producer, said, talking)
            pids, before = serve.worker_pids(), _resident_mb(serve)
            yield people
            talking.cancel()
            await people.producer.say("task_completed")
            for viewer in people.viewers:
                await wait_until(partial(has_ended, viewer))
            grown = _resident_mb(serve) - before
            nursery.cancel_scope.cancel()
            errors = serve.stderr_text()
            assert serve.worker_pids() == pids
    print(f"slowest ping {max(people.pings):.3f} s of {len(people.pings)}, memory grew {grown:.0f} MB")
    for viewer in people.viewers:
        assert (viewer.faults, viewer.gaps, viewer.connections) == ([], 0, 1)
        assert list(viewer.lines.values())[: len(said)] == said
    assert max(people.pings) < PING_SECONDS
    assert grown < GROWTH_MB
    assert "Traceback" not in errors, errors
    assert " ERROR " not in errors, errors


async def _talk(producer: Producer, said: list[str], scope: trio.CancelScope) -> None:
    with scope:
        while True:
            line = f"line {len(said)}"
            await producer.say("task_output", lines=[line])
            said.append(line)
            await trio.sleep(_PAUSE)


async def _ping(people: Bystanders, pid: int, *, task_status: trio.TaskStatus[None]) -> None:
    async with connect_to(people.serve, pid) as client:
        task_status.started()
        while True:
            asked = trio.current_time()
            assert (await client.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"
            people.pings.append(trio.current_time() - asked)
            await trio.sleep(_PAUSE)


def _resident_mb(serve: Serve) -> float:
    return resident_kb(tuple(serve.worker_pids())) / 1024
