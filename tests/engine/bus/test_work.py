"""What work queues promise, on NATS and in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from fanline.engine.bus.memory.work import MemoryWork
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.nats.work import NatsWork
from fanline.engine.bus.work import WorkQueue, WorkQueues
from fanline.protocol.nats.names import (
    DEAD_NOTIFICATIONS,
    DISPATCHES_STREAM,
    dead_notification_subject,
    dispatch_subject,
)
from fanline.protocol.nats.options import NatsOptions
from tests.support.nats.server import running_nats

QUEUE = WorkQueue(DISPATCHES_STREAM, dispatch_subject("email"), "email")
OTHER = WorkQueue(DISPATCHES_STREAM, dispatch_subject("sms"), "sms")
ONE, TWO = dispatch_subject("email", "one"), dispatch_subject("email", "two")


@asynccontextmanager
async def queues(kind: str) -> AsyncIterator[WorkQueues]:
    if kind == "memory":
        yield MemoryWork()
        return
    async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
        yield NatsWork(bus)


KINDS = pytest.mark.parametrize("kind", ["memory", pytest.param("nats", marks=pytest.mark.process)])


@KINDS
async def test_an_item_is_given_out_until_it_is_done_and_to_the_takers_of_its_queue_alone(kind: str) -> None:
    with trio.fail_after(60):
        async with queues(kind) as work:
            for queue in (QUEUE, OTHER):
                await work.ensure(queue)
            assert await work.put(ONE, b"1")
            item = await work.taker(QUEUE).take()
            assert (item.payload, item.subject, item.attempt) == (b"1", ONE, 1)
            await item.later(0.01)
            again = await work.taker(QUEUE).take()
            assert (again.payload, again.number, again.attempt) == (b"1", item.number, 2)
            assert await work.newest(DISPATCHES_STREAM, ONE) == b"1"
            await again.done()
            assert await work.newest(DISPATCHES_STREAM, ONE) is None
            with trio.move_on_after(0.3) as scope:
                await work.taker(OTHER).take()
            assert scope.cancelled_caught


@KINDS
async def test_what_waits_there_or_was_put_there_is_not_put_there_again(kind: str) -> None:
    with trio.fail_after(60):
        async with queues(kind) as work:
            await work.ensure(QUEUE)
            assert await work.put(ONE, b"1", once=True)
            assert not await work.put(ONE, b"2", once=True)
            assert await work.put(TWO, b"3", "id")
            assert not await work.put(TWO, b"4", "id")
            found = await work.look(DISPATCHES_STREAM, dispatch_subject("email"), 0, 10)
            assert [entry.value for entry in found.values()] == [b"1", b"3"]
            first, second = found
            assert list(await work.look(DISPATCHES_STREAM, dispatch_subject("email"), first, 10)) == [second]
            taker = work.taker(QUEUE)
            await (await taker.take()).done()
            assert await work.put(ONE, b"5", once=True)  # the other one is done
            assert await work.remove(DISPATCHES_STREAM, second)
            assert not await work.remove(DISPATCHES_STREAM, second)
            assert (await taker.take()).payload == b"5"


@KINDS
async def test_of_what_a_subject_has_the_newest_are_kept_and_others_keep_all(kind: str) -> None:
    with trio.fail_after(60):
        async with queues(kind) as work:
            annas, bens = dead_notification_subject("anna"), dead_notification_subject("ben")
            for number in range(5):
                for user in ("anna", "ben"):
                    await work.put(dead_notification_subject(user, f"k{number}"), b"%d" % number)
            await work.keep_newest(DEAD_NOTIFICATIONS, annas, 2)
            kept = await work.look(DEAD_NOTIFICATIONS, annas, 0, 10)
            assert [entry.value for entry in kept.values()] == [b"3", b"4"]
            assert len(await work.look(DEAD_NOTIFICATIONS, bens, 0, 10)) == 5
            assert len(await work.look(DEAD_NOTIFICATIONS, dead_notification_subject(), 0, 10)) == 7
