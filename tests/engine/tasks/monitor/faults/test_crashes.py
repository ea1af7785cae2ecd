"""A monitor may be killed at any point: the next one loses nothing, and nothing is stored twice."""

import itertools
import random
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.memory.stream import MemoryStream
from fanline.protocol.tasks.states import TaskState
from tests.engine.tasks.monitor.world import MortalBus, World
from tests.support.seeds import new_seed

_EVENTS = ["progress", "output", "paused", "resumed", "completed", "started", "failed"]


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The lease is renewed between any two requests, and a page holds two messages; `undo` ends that."""
    monkeypatch.setattr("fanline.engine.tasks.monitor.holdings.RENEW_SECONDS", 0.005)
    monkeypatch.setattr(MemoryStream, "batch", 2)
    return monkeypatch


async def produce(world: World, chance: random.Random, tasks: list[str]) -> None:
    attempts = dict.fromkeys(tasks, 1)
    for task in tasks:
        await world.say(task, "created")
    for _ in range(120):
        task, event = chance.choice(tasks), chance.choice(_EVENTS)
        if event == "started":
            attempts[task] += chance.randrange(2)
        data: dict[str, Any] = {"attempt": attempts[task]}
        data |= {"heartbeat": 5} if event == "started" else {"lines": ["x"]} if event == "output" else {}
        await world.say(task, event, **data)
        await trio.sleep(chance.random() * 0.2)


async def run_and_be_killed_again_and_again(world: World, chance: random.Random) -> None:
    while True:
        bus = MortalBus(world.broker, requests=chance.randrange(3, 120))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run_monitor, bus)
            await bus.dead.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("requests", range(1, 45))
async def test_killed_at_any_request_a_monitor_leaves_enough_to_the_next(
    autojump_clock: MockClock, world: World, requests: int, crowded: pytest.MonkeyPatch
) -> None:
    for task in ("silent", "ended"):
        await world.say(task, "created")
        await world.say(task, "started", heartbeat=1)
    bus = MortalBus(world.broker, requests)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run_monitor, bus)
        await trio.sleep(0.1)
        await world.say("ended", "completed")
        await bus.dead.wait()
        nursery.cancel_scope.cancel()
    crowded.undo()
    async with world.running_monitor():
        await trio.sleep(20)
    assert await world.timer_event_names("silent") == ["task_stalled"]
    ended = await world.record("ended")
    assert ended is not None
    assert ended["snapshot"]["state"] == "completed"
    assert await world.running() == {"task:silent"}


async def check_task(world: World, task: str) -> bool:
    """Check what the monitors have left of a task; whether it should be listed as running."""
    fold, found = await world.fold(task), await world.record(task)
    if fold.snapshot.state is TaskState.UNKNOWN:
        assert found is None
        return False
    assert found is not None
    wanted = msgspec.json.decode(fold.record((await world.bus.stream_state("task:")).epoch))
    if fold.snapshot.ended_for_good:  # later messages change nothing, and may be read again
        assert found.pop("offset") <= wanted.pop("offset")
    assert found == wanted, task
    assert fold.snapshot.heartbeat is None or fold.snapshot.state is not TaskState.RUNNING, "the silence was missed"
    messages = [msgspec.json.decode(stored.payload) for stored in await world.stored(f"task:{task}")]
    for before, after in itertools.pairwise(messages):
        assert not before["e"] == after["e"] == "task_stalled", "stored twice"
    return not fold.snapshot.ended_for_good


@pytest.mark.parametrize("run", range(8))
async def test_killed_anywhere_monitors_lose_nothing_and_store_nothing_twice(
    autojump_clock: MockClock, world: World, run: int, crowded: pytest.MonkeyPatch
) -> None:
    seed = new_seed()
    tasks = [f"t{number}" for number in range(8)]
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(run_and_be_killed_again_and_again, world, random.Random(f"{seed}/worker {number}"))
        await produce(world, random.Random(f"{seed}/producers"), tasks)
        nursery.cancel_scope.cancel()
    crowded.undo()
    async with world.running_monitor():
        await trio.sleep(60)
    running = {f"task:{task}" for task in tasks if await check_task(world, task)}
    assert await world.running() == running
