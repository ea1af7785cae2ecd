"""Items of a work queue: several at a time, those of one lane in their order, and none lost to a fault."""

import logging

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory.work import MemoryWork
from fanline.engine.bus.work import WorkItem, WorkQueue
from fanline.workers.control.notifying.taking import QueueJob, QueueWorker

QUEUE = WorkQueue("stream", "work.*", "workers")


async def test_items_of_one_lane_keep_their_order_and_others_do_not_wait_for_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    work, done, slow = MemoryWork(), list[str](), trio.Event()

    async def perform(item: WorkItem) -> None:
        if item.subject == "work.a1":
            await slow.wait()
        done.append(item.subject)
        await item.done()

    job = QueueJob(perform, at_once=2, in_hand=8, lane_of=lambda item: item.subject[:6])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(QueueWorker(work, QUEUE, job).run)
        for name in ("a1", "a2", "a3", "b1", "b2"):
            await work.put(f"work.{name}", b"")
        await trio.sleep(60)
        assert done == ["work.b1", "work.b2"]
        slow.set()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert done[2:] == ["work.a1", "work.a2", "work.a3"]


async def test_no_fault_ends_the_work_and_it_is_reported(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    work, done = MemoryWork(), list[str]()
    faults = {"work.1": BusError("away"), "work.2": ZeroDivisionError("ours")}

    async def perform(item: WorkItem) -> None:
        if (fault := faults.pop(item.subject, None)) is not None:
            work.release(item.number, item.attempt)  # as NATS does when nobody acknowledges it
            raise fault
        done.append(item.subject)
        await item.done()

    with caplog.at_level(logging.WARNING):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(QueueWorker(work, QUEUE, QueueJob(perform, 2, 2)).run)
            for name in ("1", "2", "3"):
                await work.put(f"work.{name}", b"")
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    assert sorted(done) == ["work.1", "work.2", "work.3"]
    assert not work.stored
    assert "NATS: away" in caplog.text
    assert "ZeroDivisionError" in caplog.text
