"""The end of each attempt of a task is said, once for all workers."""

from typing import Any

import pytest
import trio

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import Namespaces
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.names import Bucket
from tests.engine.hooks.listening import ALL, Listening
from tests.engine.running import running_engine

CHANNEL = "task:a~20b"


async def say(bus: MemoryBus, event: str, **data: object) -> None:
    await bus.store(CHANNEL, encode_json(Envelope("pub", event=event, data=data)))


async def until_said(heard: Listening, count: int) -> None:
    while len([event for event in heard.events if event.type == "task_ended"]) < count:
        await trio.sleep(0.01)  # the monitor takes its turns


async def test_the_end_of_each_attempt_is_said_once_however_many_workers_there_are() -> None:
    broker = MemoryBroker(Namespaces())
    heard, producer = await Listening(broker).start(), MemoryBus(broker)
    with trio.fail_after(30):
        async with running_engine(broker=broker, hooks=ALL):
            async with running_engine(broker=broker, hooks=ALL):
                await say(producer, "task_started")
                await say(producer, "task_failed", error="no disk")
                await until_said(heard, 1)
                await say(producer, "task_started", attempt=2)
                await say(producer, "task_completed", attempt=2, result={"rows": 3})
                await until_said(heard, 2)
            await say(producer, "task_started", attempt=3)  # what is said next shows that nothing was said in between
            await say(producer, "task_cancelled", attempt=3, by="anna")
            await until_said(heard, 3)
    assert [event.data for event in heard.events] == [
        {"task_id": "a b", "channel": CHANNEL, "state": "failed", "attempt": 1, "error": "no disk"},
        {"task_id": "a b", "channel": CHANNEL, "state": "completed", "attempt": 2, "result": {"rows": 3}},
        {"task_id": "a b", "channel": CHANNEL, "state": "cancelled", "attempt": 3, "by": "anna"},
    ]
    assert len({event.id for event in heard.events}) == 3


async def test_an_end_that_was_said_but_not_stored_is_not_said_again_after_an_orderly_handover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = MemoryBus.kv_put

    async def never_records(bus: MemoryBus, bucket: Bucket, *rest: Any) -> int:
        if bucket is Bucket.TASKS:
            await trio.sleep_forever()
        return await put(bus, bucket, *rest)

    broker = MemoryBroker(Namespaces())
    heard, producer = await Listening(broker).start(), MemoryBus(broker)
    monkeypatch.setattr(MemoryBus, "kv_put", never_records)
    with trio.fail_after(30):
        for attempt in (1, 2, 3):  # each in a worker of its own, which reads what the ones before have not stored
            async with running_engine(broker=broker, hooks=ALL):
                await say(producer, "task_started", attempt=attempt)
                await say(producer, "task_failed", attempt=attempt, error="no disk")
                await until_said(heard, attempt)
        async with running_engine(broker=broker, hooks=ALL):
            await say(producer, "task_started", attempt=4)
            await say(producer, "task_completed", attempt=4)
            await until_said(heard, 4)
    assert [event.data["attempt"] for event in heard.events] == [1, 2, 3, 4]
