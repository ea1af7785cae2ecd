"""Joining a task: one snapshot with the log tail, then live; whoever joins whenever ends in the same state."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from fanline.engine.namespaces import Namespace
from fanline.engine.settings import EngineSettings
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.restore import restore
from fanline.protocol.envelope import decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket, channel_key
from fanline.protocol.tasks.events import data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot
from tests.engine.running import RunningEngine, running_engine
from tests.engine.task_channels import CHANNEL, Producer, watch
from tests.support.raw_client import RawClient, connect
from tests.support.seeds import new_seed


@asynccontextmanager
async def engine_and_producer(**namespace: Any) -> AsyncIterator[tuple[RunningEngine, Producer]]:
    task = Namespace(durable=True, tasks=True, **namespace)
    with trio.fail_after(60):
        async with running_engine(EngineSettings(namespaces={"task": task}, outbox_bytes=50_000_000)) as engine:
            yield engine, Producer(engine.broker)


class Viewer:
    """Folds what it is sent, as a viewer does, and keeps the log lines of the newest attempt by their number."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.snapshot = Snapshot()
        self.lines: dict[tuple[int, int], str] = {}

    async def begin(self) -> None:
        self._take_frame(await watch(self._client, lines=1000))

    async def follow(self) -> None:
        """Take all messages that have been sent by now."""
        await self._client.say({"t": "ping", "i": "end"})
        while (frame := await self._client.json())["t"] != "pong":
            self._take(frame)

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["t"] == "gap":
            return
        if frame.get("e") == "task_snapshot":
            self._take_frame(frame)
            return
        envelope = decode_json(msgspec.json.encode(frame))
        event = event_of(envelope)
        if event is None:
            return
        try:
            data = data_of(envelope, event)
            self.snapshot = apply(self.snapshot, event, data, envelope.time or 0)
        except MessageError:
            return
        self._take_lines(data.lines or (), data.first or 0)

    def _take_frame(self, frame: dict[str, Any]) -> None:
        self.snapshot = msgspec.convert(frame["d"]["snapshot"], Snapshot)
        for batch in frame["d"]["output"]:
            for index, line in enumerate(batch["lines"]):
                self.lines[batch["attempt"], batch["first"] + index] = line

    def _take_lines(self, lines: Any, first: int) -> None:
        for index, line in enumerate(lines):
            self.lines[self.snapshot.attempt, first + index] = line


async def random_event(producer: Producer, chance: random.Random, number: int) -> None:
    """One more event of any kind, some of which make no sense."""
    attempt = 1 if number < 60 else 2
    choices: list[tuple[str, dict[str, Any]]] = [
        ("task_progress", {"percent": chance.randrange(103)}),
        ("task_progress", {"done": chance.randrange(50), "total": 50, "stage": f"s{number}"}),
        ("task_output", {"lines": [f"line {number}.{index}" for index in range(chance.randrange(4))]}),
        ("task_output", {"lines": [f"error {number}"], "stream": "stderr"}),
        ("task_paused", {}),
        ("task_resumed", {}),
        ("task_stalled", {}),
        ("task_heard", {}),
        ("task_confirmation_required", {"ask": f"q{number % 3}"}),
        ("task_input", {"ask": f"q{chance.randrange(3)}", "by": "ann"}),
        ("task_cancel_requested", {"by": "ann"}),
        ("task_cancel_refused", {}),
        ("note", {"percent": 7}),
        ("task_failed" if number % 7 == 0 else "task_progress", {"message": f"m{number}"}),
    ]
    event, data = chance.choice(choices)
    await producer.say(event, attempt=attempt, **data)


async def test_whoever_joins_at_any_moment_ends_as_if_there_from_the_start() -> None:
    chance = random.Random(new_seed())
    async with engine_and_producer() as (engine, producer), trio.open_nursery() as nursery:
        viewers: list[Viewer] = []

        async def join(*, task_status: trio.TaskStatus[None]) -> None:
            async with connect(engine.host, engine.port) as client:
                viewers.append(Viewer(client))
                await viewers[-1].begin()
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(join)
        for number in range(120):
            if chance.random() < 0.1:
                await nursery.start(join)
            await random_event(producer, chance, number)
        await nursery.start(join)
        for viewer in viewers:
            await viewer.follow()
        truth = viewers[-1]
        assert truth.snapshot.state != "unknown"
        for viewer in viewers:
            assert viewer.snapshot == truth.snapshot
            assert viewer.lines == truth.lines
        nursery.cancel_scope.cancel()


async def test_a_task_that_nobody_knows_is_unknown_until_its_first_event() -> None:
    async with engine_and_producer() as (engine, producer), connect(engine.host, engine.port) as client:
        frame = await watch(client)
        assert frame["d"] == {"snapshot": {"state": "unknown", "attempt": 0}, "output": []}
        await producer.say("task_started", title="Build")
        assert (await client.json())["d"] == {"title": "Build", "state": "running", "attempt": 1}


async def test_the_log_tail_is_there_however_much_progress_came_after_it() -> None:
    async with engine_and_producer(history=100) as (engine, producer):
        async with connect(engine.host, engine.port) as early:
            await watch(early)
            await producer.say("task_output", lines=[f"line {n}" for n in range(300)])
            for percent in range(200):
                await producer.say("task_progress", percent=percent / 2)
            async with connect(engine.host, engine.port) as late:
                frame = await watch(late)
        lines = [line for batch in frame["d"]["output"] for line in batch["lines"]]
        assert lines == [f"line {n}" for n in range(100, 300)]
        assert frame["d"]["snapshot"]["percent"] == 99.5


async def test_a_worker_begins_with_the_checkpoint_where_the_stream_no_longer_reaches_back() -> None:
    async with engine_and_producer(history=5) as (engine, producer):
        folded, number = TaskFold(CHANNEL), 0
        for line in range(20):
            number = await producer.say("task_output", lines=[f"line {line}"])
            (stored,) = (await engine.bus.read(CHANNEL, number)).messages
            folded.take(decode_json(stored.payload), stored.position.offset)
            if line == 17:
                epoch = (await engine.bus.stream_state(CHANNEL)).epoch
                await engine.bus.kv_put(Bucket.TASKS, channel_key(CHANNEL), folded.record(epoch), 60)
        async with connect(engine.host, engine.port) as client:
            frame = await watch(client)
        assert [line for batch in frame["d"]["output"] for line in batch["lines"]] == [f"line {n}" for n in range(20)]
        assert frame["d"]["snapshot"]["lines"] == 20


async def test_an_event_that_does_not_fit_reaches_no_viewer_and_one_that_says_nothing_plain_passes_through() -> None:
    async with engine_and_producer() as (engine, producer), connect(engine.host, engine.port) as client:
        await watch(client)
        await producer.say("task_progress", percent=101)
        await producer.say("task_completed", result=5)
        await producer.say("task_progress", percent=50)
        await producer.say("anything", percent=50)
        assert [(await client.json())["e"] for _ in range(3)] == ["task_progress", "task_completed", "anything"]
        while engine.server.statistics().messages_bad < 2:  # counted by the keeper
            await trio.sleep(0.01)


async def test_a_task_event_does_not_expire_for_those_who_come_back() -> None:
    async with engine_and_producer() as (engine, _), connect(engine.host, engine.port) as client:
        await watch(client)
        await engine.bus.store(CHANNEL, b'{"v":1,"e":"task_output","ts":1000,"ttl":1,"d":{"lines":["old"]}}', "old")
        assert (await client.json())["d"]["lines"] == ["old"]
        answer = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "d": {"start": True}})
        assert answer["d"]["count"] == 1


async def test_nobody_but_the_engine_says_a_snapshot() -> None:
    async with engine_and_producer() as (engine, producer), connect(engine.host, engine.port) as client:
        await watch(client)
        await producer.say("task_snapshot", snapshot={"state": "completed", "attempt": 7}, output=[])
        await producer.say("task_started")
        assert (await client.json())["e"] == "task_started"


async def test_after_a_gap_a_viewer_is_told_the_state_anew() -> None:
    async with engine_and_producer(history=3) as (engine, producer):
        for percent in range(10):
            await producer.say("task_progress", percent=percent)
        async with connect(engine.host, engine.port) as behind:
            answer = await behind.ask({"t": "sub", "c": CHANNEL, "i": "s", "o": 1})
            assert answer["d"]["recovered"] is False
            frames = [await behind.json() for _ in range(5)]
        assert [frame["t"] for frame in frames] == ["gap", "pub", "pub", "pub", "pub"]
        assert (frames[-1]["e"], frames[-1]["o"]) == ("task_snapshot", 10)
        assert frames[-1]["d"]["snapshot"]["percent"] == 9


async def test_messages_lost_for_good_on_a_live_connection_end_with_the_true_state() -> None:
    async with engine_and_producer(history=3) as (engine, producer), connect(engine.host, engine.port) as client:
        await watch(client)
        engine.bus.leave(CHANNEL)  # the bus loses what is said now
        for percent in range(10):
            await producer.say("task_progress", percent=percent)
        engine.bus.join(CHANNEL)
        await producer.say("task_output", lines=["back"])
        while (frame := await client.json()).get("e") != "task_snapshot":
            pass
        assert frame["d"]["snapshot"]["percent"] == 9


async def test_a_restored_log_takes_nothing_twice_when_the_checkpoint_is_ahead() -> None:
    async with engine_and_producer() as (engine, producer):
        folded = TaskFold(CHANNEL)
        for line in range(4):
            await producer.say("task_output", lines=[str(line)])
            folded.take(decode_json(b'{"v":1,"e":"task_output","d":{"lines":["%d"]}}' % line), line + 1)
        epoch = (await engine.bus.stream_state(CHANNEL)).epoch
        await engine.bus.kv_put(Bucket.TASKS, channel_key(CHANNEL), folded.record(epoch), 60)
        log = TaskFold(CHANNEL)
        await restore(engine.bus, lambda stored: decode_json(stored.payload), log, epoch, 2)
        assert (log.offset, log.snapshot.lines) == (4, 4)
