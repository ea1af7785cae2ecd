"""What the task monitor stores so that it outlives the monitor: records, the list of running tasks, their table."""

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBus
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.tasks.monitor.monitored_task import RECORD_SECONDS
from fanline.engine.tasks.monitor.stored.table import TABLE_CHANNEL
from fanline.protocol.nats.names import Bucket
from tests.engine.tasks.monitor.world import World


async def test_a_state_is_recorded_at_once_and_progress_after_a_while(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a", "started", title="T")
        await trio.sleep(0.7)
        first = await world.record("a")
        assert first is not None
        assert (first["snapshot"]["state"], first["snapshot"]["title"], first["offset"]) == ("running", "T", 1)
        await world.say("a", "progress", percent=10)
        await trio.sleep(1)
        assert await world.record("a") == first
        await trio.sleep(RECORD_SECONDS)
        later = await world.record("a")
        assert later is not None
        assert (later["snapshot"]["percent"], later["offset"]) == (10.0, 2)
        await world.say("a", "output", lines=["one", "two"])
        await world.say("a", "completed", result=42)
        await trio.sleep(0.5)
        last = await world.record("a")
        assert last is not None
        assert (last["snapshot"]["result"], last["output"][0]["lines"], last["offset"]) == (42, ["one", "two"], 4)


async def test_a_thousand_events_are_recorded_before_their_time(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a", "started")
        await trio.sleep(1)
        for number in range(1000):
            await world.say("a", "output", lines=[str(number)])
        await trio.sleep(1)
        found = await world.record("a")
        assert found is not None
        assert found["snapshot"]["lines"] == 1000


async def test_a_task_is_listed_as_running_from_its_start_to_its_end(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await world.say("a.b:c", "created")
        await world.say("custom", "of_its_own")
        await trio.sleep(1)
        assert await world.running() == {"task:a.b:c"}
        await world.say("a.b:c", "failed", error="x")
        await trio.sleep(1)
        assert await world.running() == set()
        await trio.sleep(30)
        await world.say("a.b:c", "started", attempt=2)
        await trio.sleep(1)
        assert await world.running() == {"task:a.b:c"}
        found = await world.record("a.b:c")
        assert found is not None
        assert (found["snapshot"]["attempt"], found["snapshot"]["state"]) == (2, "running")


async def test_a_record_that_is_too_large_goes_without_its_output(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broker.max_payload = 3000
    async with world.running_monitor():
        await world.say("a", "started")
        for _ in range(10):
            await world.say("a", "output", lines=["x" * 1000])
        await trio.sleep(1)
        await world.say("a", "completed")
        await trio.sleep(1)
        found = await world.record("a")
        assert found is not None
        assert (found["snapshot"]["state"], found["snapshot"]["lines"], found["output"]) == ("completed", 10, [])
    assert caplog.text.count("the record of task:a goes without its output") == 1


async def test_what_is_stored_of_a_running_task_outlives_a_short_retention(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Minutes instead of hours, each of which takes seconds to simulate.
    for module in ("monitored_task", "stored.records"):
        monkeypatch.setattr(f"fanline.engine.tasks.monitor.{module}.REFRESH_SECONDS", 200.0)
    world.namespaces = Namespaces({"task": Namespace(durable=True, tasks=True, retention=60)})
    async with world.running_monitor():
        await world.say("a", "started", heartbeat=10_000)
        for _ in range(9):
            await trio.sleep(55)
            world.broker.beat("task:a")
            assert await world.record("a") is not None
            assert await world.running() == {"task:a"}
        await world.say("a", "completed")
        await trio.sleep(50)
        assert await world.record("a") is not None
        await trio.sleep(20)
        assert await world.record("a") is None


async def test_a_record_that_is_stored_but_not_confirmed_repeats_no_line_of_output(
    autojump_clock: MockClock, world: World
) -> None:
    class UnconfirmedBus(MemoryBus):
        async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, *revision: int | None) -> int:
            stored = await super().kv_put(bucket, key, value, seconds, *revision)
            if bucket is Bucket.TASKS and b"once" in value and not unconfirmed:
                unconfirmed.append(key)
                raise BusError("NATS did not answer; it may have been done")
            return stored

    unconfirmed: list[str] = []
    async with world.running_monitor(UnconfirmedBus(world.broker)):
        await world.say("a", "started")
        await world.say("a", "output", lines=["once"])
        await world.say("a", "paused")
        await trio.sleep(5)
        await world.say("a", "resumed")
        await world.say("a", "output", lines=["twice"])
        await world.say("a", "completed")
        await trio.sleep(5)
        found = await world.record("a")
        assert found is not None
        assert [line for batch in found["output"] for line in batch["lines"]] == ["once", "twice"]
    assert unconfirmed == ["task.a"]


# --- the table ----------------------------------------------------------------------------------------------------


async def test_the_table_is_published_newest_first_at_most_once_a_second_and_only_when_it_changes(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        await world.say("a", "started", title="A")
        await trio.sleep(0.1)
        await world.say("b", "progress", percent=25, stage="s")
        await trio.sleep(1.5)
        table = await world.table()
        assert [(row["id"], row["state"], row["attempt"]) for row in table["tasks"]] == [
            ("b", "running", 1),
            ("a", "running", 1),
        ]
        assert table["total"] == 2
        assert (table["tasks"][0]["percent"], table["tasks"][0]["stage"]) == (25.0, "s")
        before = (await world.bus.stream_state(TABLE_CHANNEL)).last
        for number in range(30):
            await world.say("a", "progress", percent=number)
            await trio.sleep(0.1)
        assert 2 <= (await world.bus.stream_state(TABLE_CHANNEL)).last - before <= 4
        await world.say("a", "completed")
        await world.say("b", "completed")
        await trio.sleep(1.5)
        assert await world.table() == {"tasks": [], "total": 0}
        quiet = (await world.bus.stream_state(TABLE_CHANNEL)).last
        await trio.sleep(10)
        assert (await world.bus.stream_state(TABLE_CHANNEL)).last == quiet


async def test_a_table_that_is_too_large_has_fewer_rows(autojump_clock: MockClock, world: World) -> None:
    world.broker.max_payload = 3000
    async with world.running_monitor():
        for number in range(60):
            await world.say(str(number), "started", title="x" * 100)
            await trio.sleep(0.01)
        await trio.sleep(2)
        table = await world.table()
        assert table["total"] == 60
        rows = [int(row["id"]) for row in table["tasks"]]
        assert 5 < len(rows) < 60
        assert rows == list(range(59, 59 - len(rows), -1))
