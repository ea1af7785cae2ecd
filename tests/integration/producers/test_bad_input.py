"""Mistakes of a task's producer harm nobody else: real processes, real NATS. HARD=1 runs the long forms."""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from fanline.protocol.envelope import Envelope, encode_cbor
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import Serve, wait_until
from tests.support.tasks.bystanders import bystanders
from tests.support.tasks.on_worker import connect_to
from tests.support.tasks.viewers import ResumingViewer, has_ended

HARD = os.environ.get("HARD") == "1"
BAD = "fanline.pub.task.bad"


def event(name: str, **data: Any) -> bytes:
    return msgspec.json.encode({"v": 1, "e": name, "d": data})


BAD_EVENTS = [
    event("task_progress", percent=101),
    event("task_snapshot", snapshot={"state": "completed", "attempt": 7}, output=[]),
    event("task_progress", percent=-1),
    event("task_progress", done="many"),
    b'{"v":1,"e":"task_progress","d":{"percent":NaN}}',
    b'{"v":1,"e":"task_progress","d":{"percent":1e999}}',
    encode_cbor(Envelope(event="task_progress", data={"percent": math.nan})),
    encode_cbor(Envelope(event="task_output", data={"lines": [b"\xff\x00", 1]})),
    event("task_output", lines=[1, None]),
    event("task_started", attempt=0),
    event("task_started", heartbeat=-1),
    event("task_input", ask="never asked", by="x"),
    b'{"v":1,"e":"task_progress","d":[1,2]}',
    b'{"v":1,"e":"task_progress","d":7}',
    b'{"v":9,"e":"task_progress"}',
    b'{"v":1,"e":"task_progress","d":{"percent":1',
    b"\xff\xfe\x00\x80" * 100,
]


async def test_events_that_make_no_sense_change_nothing_and_are_counted_in_the_log() -> None:
    async with bystanders() as people, connect_nats(people.serve.engine_url) as nats:
        async with _watching(people.serve, "task:bad") as viewers:
            await nats.publish((BAD, event("task_started")))
            for payload in BAD_EVENTS:
                await nats.publish((BAD, payload))
            await nats.publish((BAD, event("task_completed", result=1)))
            await nats.publish((BAD, event("task_progress", percent=50)), (BAD, event("task_completed", result=2)))
            await nats.publish(("fanline.pub.task.other", event("no_such_event")), (BAD, event("end_of_test")))
            for viewer in viewers:
                await wait_until(partial(_has_last, "end_of_test", viewer))
                events = [name for name in viewer.events if name.startswith("task_")]
                ends = [number for number, name in enumerate(events) if name == "task_completed"]
                assert (events[0], ends, viewer.faults) == ("task_started", [len(events) - 1], [])
                assert (viewer.snapshot.result, viewer.snapshot.lines) == (1, 0)
        assert "dropped a message on task:bad" in people.serve.stderr_text()


async def test_a_line_of_900_kilobytes_arrives_and_is_cut_in_the_log_tail() -> None:
    async with bystanders() as people, connect_nats(people.serve.engine_url) as nats:
        async with _watching(people.serve, "task:bad") as viewers:
            for number in range(20):
                await nats.publish((BAD, event("task_output", lines=[f"{number}" + "x" * 900_000])))
            await nats.publish((BAD, event("task_completed")))
            for viewer in viewers:
                await wait_until(partial(has_ended, viewer))
                assert [len(line) > 900_000 for line in viewer.lines.values()] == [True] * 20
            async with _watching(people.serve, "task:bad") as late:
                assert all(len(line) <= 8192 for line in late[0].lines.values())
                assert late[0].snapshot == viewers[0].snapshot


@asynccontextmanager
async def _watching(serve: Serve, channel: str) -> AsyncIterator[list[ResumingViewer]]:
    """A viewer on each worker, in two dialects."""
    first, second = serve.worker_pids()
    viewers = [
        ResumingViewer(serve, channel, worker=first),
        ResumingViewer(serve, channel, "fanline.v1.cbor", worker=second),
    ]
    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            await nursery.start(viewer.run)
        yield viewers
        nursery.cancel_scope.cancel()


async def test_a_producer_that_publishes_as_fast_as_it_can_leaves_the_workers_responsive() -> None:
    count = 100_000 if HARD else 60_000  # for as long as it takes to be asked a few times
    flood = [
        event("task_output", lines=[str(number)]) if number % 2 else event("task_progress", done=number, total=count)
        for number in range(count)
    ]
    async with bystanders() as people, connect_nats(people.serve.engine_url) as nats:
        async with _watching(people.serve, "task:bad") as viewers, trio.open_nursery() as nursery:
            told: dict[int, list[int]] = {pid: [] for pid in people.serve.worker_pids()}
            for pid, lines in told.items():
                nursery.start_soon(_ask_again_and_again, people.serve, pid, lines)
            await nats.publish(*((BAD, payload) for payload in flood), (BAD, event("task_completed", result=count)))
            for viewer in viewers:
                await wait_until(partial(has_ended, viewer), 60)
            nursery.cancel_scope.cancel()
            async with _watching(people.serve, "task:bad") as late:
                for viewer, joined in zip(viewers, late, strict=True):
                    assert viewer.snapshot == joined.snapshot
                    assert (viewer.snapshot.percent, viewer.snapshot.result) == (100, count)
    for lines in told.values():
        print(f"{len(lines)} answers, {len(_midway(lines, count))} of them amid the flood")
        assert len(_midway(lines, count)) >= 5, "the worker read the flood to its end before it did anything else"
    everything = [str(number) for number in range(1, count, 2)]
    for viewer in viewers:
        # What goes beyond the history, faster than a worker reads it, may be lost; a gap then says so.
        assert viewer.gaps or (viewer.faults, list(viewer.lines.values())) == ([], everything)


async def _ask_again_and_again(serve: Serve, worker: int, lines: list[int]) -> None:
    """Ask a worker for the task's state, over and over; note how many lines it had read when it answered."""
    async with connect_to(serve, worker) as client:
        while True:
            answer = await client.ask({"v": 1, "t": "call", "c": "task:bad", "i": "s", "e": "status"})
            lines.append(answer["d"].get("lines", 0))


def _midway(lines: list[int], count: int) -> set[int]:
    """The states between the first event and the last that a worker reported."""
    return {number for number in lines if 0 < number < count // 2}


def _has_last(name: str, viewer: ResumingViewer) -> bool:
    return viewer.events[-1:] == [name]
