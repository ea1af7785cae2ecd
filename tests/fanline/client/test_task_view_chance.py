"""Viewers of a task under random faults: whatever is cut, each ends like one that saw it all."""

import random
from typing import Any

import pytest
import trio

import fanline
from fanline.client.task_view import TaskView
from fanline.protocol.tasks.events import TaskEvent
from tests.fanline.client.durable_peer import CHANNEL, DurablePeer, durable_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

LAST = 1000  # attempt: higher than any that an event begins
PROGRESS, OUTPUT, COMPLETED = TaskEvent.PROGRESS, TaskEvent.OUTPUT, TaskEvent.COMPLETED
pytestmark = pytest.mark.usefixtures("hurry")


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_cut_or_lost_every_viewer_ends_like_one_that_saw_it_all(seed: int) -> None:
    chance = random.Random(f"task{seed}")
    with trio.fail_after(20):
        async with durable_peer(seed, cut=0.04, lose=0.05, repeat=0.05) as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL, gaps=True) as plain, trio.open_nursery() as nursery:
                viewers = 0
                for number in range(150):
                    if number in (0, 40) or chance.random() < 0.02:
                        viewers += 1
                        await nursery.start(_watch, client, peer)
                    if chance.random() < 0.02:
                        peer.forget()
                    event, data = _anything(chance)
                    await peer.publish(data, event)
                    if chance.random() < 0.3:
                        await trio.lowlevel.checkpoint()
                await peer.publish({"attempt": LAST, "result": "the end"}, COMPLETED)
                assert viewers >= 2
                while nursery.child_tasks:
                    await peer.cut()
                    await trio.sleep(0.02)
                await _get_it_all(plain, peer.last)


async def _get_it_all(plain: fanline.Subscription[fanline.Message | fanline.Gap], last: int) -> None:
    """Every message that is not reported as missing, in order, and no viewer's snapshot."""
    reached = 0
    while reached < last:
        item = await anext(plain)
        if isinstance(item, fanline.Gap):
            assert item.first == reached + 1
            reached = item.last or 0
        else:
            assert (item.previous or 0) <= reached < (item.offset or 0)
            assert item.event != TaskEvent.SNAPSHOT
            reached = item.offset or 0


async def _watch(
    client: fanline.Client, peer: DurablePeer, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with client.task("1", lines=50, follow=True) as task:
        task_status.started()
        while task.snapshot.attempt < LAST:
            await anext(task)
        await _take_the_rest(task)
        assert task.snapshot == peer.task.snapshot
        assert _plain(task.output) == _seen_from_the_start(peer)


async def _take_the_rest(task: TaskView) -> None:
    """What follows the end after a gap."""
    task._follow = False
    async for _ in task:
        pass


def _plain(lines: Any) -> list[tuple[Any, ...]]:
    return [(line.text, line.stream, line.number, line.attempt, line.superseded) for line in lines]


def _seen_from_the_start(peer: DurablePeer) -> list[tuple[Any, ...]]:
    newest = peer.task.lines[-50:]
    return [(line["lines"][0], line["stream"], line["first"], line["attempt"], True) for line in newest]


def _anything(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Any event, fitting or not."""
    event = chance.choice([*TaskEvent, OUTPUT, OUTPUT, OUTPUT, PROGRESS, PROGRESS])
    if event is TaskEvent.SNAPSHOT:
        return "artifact", {}
    data: dict[str, Any] = {}
    if chance.random() < 0.1:
        data["attempt"] = chance.randrange(1, 8)
    if event is PROGRESS:
        data |= {"percent": chance.randrange(0, 110), "eta": chance.choice([None, 9.5])}
    elif event is OUTPUT:
        data |= {"lines": [str(chance.random()) for _ in range(chance.randrange(4))], "stream": "stderr"}
    elif event in (TaskEvent.ASKED, TaskEvent.ANSWERED, TaskEvent.ASK_EXPIRED):
        data |= {"ask": chance.choice("ab"), "by": chance.choice(["ann", "ben"])}
    return event, data
