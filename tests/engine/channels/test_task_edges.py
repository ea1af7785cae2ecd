"""Where two attempts, two cancels, or two monitors meet: what was done for one must not touch the other."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import PING
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.nats.names import Bucket
from tests.engine.sessions.calls.test_calls import attached, code
from tests.engine.task_channels import CHANNEL, call, watch
from tests.engine.tasks.monitor.world import World
from tests.support.raw_client import connect


def said(event: str, time: int, **data: object) -> Envelope:
    return from_producer(msgspec.json.encode({"v": 1, "e": event, "ts": time, "d": data}))


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> World:
    """A monitor's world in which tasks are kept for 80 s, and written again after half of that."""
    for module in ("monitored_task", "stored.records"):
        monkeypatch.setattr(f"fanline.engine.tasks.monitor.{module}.REFRESH_SECONDS", 40.0)
    world = World()
    task = Namespace(durable=True, tasks=True, retention=80)
    world.namespaces = world.broker.namespaces = Namespaces({"task": task})
    return world


def test_the_estimate_begins_anew_with_each_attempt_however_it_begins() -> None:
    log = TaskFold(CHANNEL)
    events = [
        said("task_progress", 1000, percent=0),
        said("task_progress", 11_000, percent=10),
        said("task_failed", 12_000),
        said("task_started", 1_012_000, attempt=2),
        said("task_progress", 1_012_100, percent=50),
    ]
    for offset, event in enumerate(events, 1):
        log.take(event, offset)
    assert (log.snapshot.rate, log.snapshot.eta) == (None, None)


async def test_a_refusal_too_long_to_be_stored_whole_is_still_a_refusal() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:
        producer.answer = msgspec.json.encode({"v": 1, "t": "err", "d": {"message": "x" * 17_000}})
        assert code(await call(client, "cancel", {"deadline": 1})) == "refused"
        assert (await watch(viewer))["d"]["snapshot"]["state"] == "running"


async def test_an_accepted_cancel_keeps_its_deadline_when_an_earlier_one_is_refused() -> None:
    async with (
        attached() as (engine, _, client),
        connect(engine.host, engine.port) as other,
        connect(engine.host, engine.port) as viewer,
    ):
        asked, refused = trio.Event(), trio.Event()

        async def answer(payload: bytes) -> bytes:
            if payload == PING:
                return b""
            if msgspec.json.decode(payload)["u"] == "ann":
                asked.set()
                return b'{"v":1,"t":"err","d":{"message":"no"}}'
            await refused.wait()
            return b'{"v":1,"t":"ok"}'

        async def ann() -> None:
            assert code(await call(client, "cancel", {"by": "ann", "deadline": 60})) == "refused"
            refused.set()

        engine.broker.listeners[CHANNEL] = answer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ann)
            await asked.wait()
            await call(other, "cancel", {"by": "bob", "deadline": 60})
        snapshot = (await watch(viewer))["d"]["snapshot"]
        assert (snapshot["state"], snapshot["stop"]["accepted"]) == ("cancelling", True)
        assert snapshot["stop"]["deadline"] > 0


async def test_a_cancel_of_one_attempt_does_not_stop_the_next() -> None:
    async with attached() as (engine, producer, client), connect(engine.host, engine.port) as viewer:

        async def answer(payload: bytes) -> bytes:
            if payload == PING:
                return b""
            await producer.say("task_cancelled")
            await producer.say("task_started", attempt=2)  # its own supervisor starts it anew
            return b'{"v":1,"t":"ok"}'

        engine.broker.listeners[CHANNEL] = answer
        await call(client, "cancel")
        snapshot = (await watch(viewer))["d"]["snapshot"]
        assert (snapshot["attempt"], snapshot["state"]) == (2, "running")


async def test_an_answer_as_deep_as_messages_may_be_is_refused_and_not_stored() -> None:
    async with attached() as (engine, producer, client):
        value: object = 1
        for _ in range(64):
            value = [value]
        await producer.say("task_confirmation_required", ask="q", kind="input")
        stored = engine.broker.streams["task"].newest(CHANNEL)
        assert code(await call(client, "input", value)) == "bad_message"
        assert engine.broker.streams["task"].newest(CHANNEL) == stored


async def test_a_task_that_is_never_heard_of_again_is_forgotten_after_its_retention(
    autojump_clock: MockClock, short_memory: World
) -> None:
    async with short_memory.running_monitor():
        await short_memory.say("zombie", "started")
        await trio.sleep(1)
        assert [row["id"] for row in (await short_memory.table())["tasks"]] == ["zombie"]
        await trio.sleep(3 * 80)
        assert (await short_memory.table())["tasks"] == []
        assert await short_memory.bus.kv_get(Bucket.TASKS, "task.zombie") is None


async def test_a_task_that_only_beats_is_still_monitored_by_the_next_worker(
    autojump_clock: MockClock, short_memory: World
) -> None:
    async with short_memory.running_monitor():
        await short_memory.say("a", "started", heartbeat=11)
        for _ in range(30):
            await trio.sleep(8.8)
            short_memory.broker.beat("task:a")
    async with short_memory.running_monitor():
        await trio.sleep(22)
    assert await short_memory.timer_event_names("a") == ["task_stalled"]


async def test_what_an_old_attempt_says_is_no_life_of_the_new_one(
    autojump_clock: MockClock, short_memory: World
) -> None:
    async with short_memory.running_monitor():
        await short_memory.say("a", "started", heartbeat=2)
        await short_memory.say("a", "started", attempt=2)
        for percent in range(20):
            await trio.sleep(1)
            await short_memory.say("a", "progress", attempt=1, percent=percent)
        assert await short_memory.timer_event_names("a") == ["task_stalled"]
