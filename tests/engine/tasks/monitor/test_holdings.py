"""Which worker holds which share, while workers come, end, die and sleep: nothing is lost, nothing is told twice."""

import itertools
import random
from collections import Counter

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBus
from fanline.engine.bus.stored import KvEntry
from fanline.engine.cluster.shares import SHARES
from fanline.engine.tasks.monitor.holdings import STEADY_SECONDS, Holdings
from fanline.engine.tasks.monitor.lease import EXPIRY_SECONDS
from fanline.protocol.nats.names import Bucket
from tests.engine.tasks.monitor.world import MortalBus, World
from tests.support.seeds import new_seed


async def test_one_worker_alone_holds_all_shares_at_once(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor():
        await trio.sleep(0.5)
        assert len(set(await world.holders())) == 1
        assert all(await world.holders())


async def test_shares_are_divided_among_the_live_workers_and_only_those_that_have_to_move_do(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        alone = await world.holders()
        async with world.running_monitor():
            await trio.sleep(STEADY_SECONDS + 3)
            two = await world.holders()
            assert len(set(two)) == 2
            assert max(Counter(two).values()) < SHARES
            async with world.running_monitor():
                await trio.sleep(STEADY_SECONDS + 3)
                three = await world.holders()
                (third,) = set(three) - set(two)
                assert all(later in (before, third) for before, later in zip(two, three, strict=True))
            await trio.sleep(1.5)
            assert await world.holders() == two
        await trio.sleep(1.5)
        assert await world.holders() == alone


async def test_the_shares_of_a_worker_that_dies_are_taken_over_when_its_leases_have_expired(
    autojump_clock: MockClock, world: World
) -> None:
    bus = MortalBus(world.broker)
    async with world.running_monitor(bus), world.running_monitor():
        await trio.sleep(STEADY_SECONDS + 3)
        both = await world.holders()
        bus.kill()
        await trio.sleep(EXPIRY_SECONDS + 1)
        (survivor,) = set(await world.holders())
        assert survivor in both


async def test_when_the_bus_stutters_no_share_moves(autojump_clock: MockClock, world: World) -> None:
    async with world.running_monitor(), world.running_monitor(), world.running_monitor():
        await trio.sleep(STEADY_SECONDS + 4)
        before = await world.holders()
        for seconds in (0.5, 2, 4, 10, 30):
            world.broker.available = False
            await trio.sleep(seconds)
            world.broker.available = True
            for _ in range(20):
                assert await world.holders() == before
                await trio.sleep(0.25)


async def test_a_worker_that_was_asleep_finds_that_it_has_lost_its_shares(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running_monitor():
        await trio.sleep(1)
        (before,) = set(await world.holders())
        for number in range(SHARES):  # as another worker would, that has waited long enough
            entry = await world.bus.kv_get(Bucket.LEASES, f"tasks.{number}")
            assert entry is not None
            value = entry.value.replace(before.encode(), b"another")
            await world.bus.kv_update(Bucket.LEASES, f"tasks.{number}", value, entry.revision)
        await world.say("a", "started", heartbeat=1)
        await trio.sleep(1.5)
        assert set(await world.holders()) == {"another"}
        assert "another worker has taken over share" in caplog.text
        assert await world.timer_event_names("a") == []
        await trio.sleep(EXPIRY_SECONDS + 2)
        assert set(await world.holders()) == {before}
        assert await world.timer_event_names("a") == ["task_stalled"]


# --- what is told while shares move -------------------------------------------------------------------------------


async def come_and_go(world: World, chance: random.Random) -> None:
    """A worker that ends, dies, or comes back, again and again."""
    while True:
        bus = MortalBus(world.broker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run_monitor, bus)
            await trio.sleep(chance.uniform(0.5, 12))
            if chance.random() < 0.5:
                bus.kill()
            nursery.cancel_scope.cancel()
        await trio.sleep(chance.uniform(0, 3))


async def produce(world: World, chance: random.Random, task: str, told: dict[str, list[str]]) -> None:
    """Start attempts, each of which has one thing that the monitor has to tell, and wait for it."""
    for attempt in itertools.count(1):
        kind = chance.choice(["timeout", "cancelled", "stalled", "confirmation_expired"])
        await world.say(task, "started", attempt=attempt, **({"timeout": 4} if kind == "timeout" else {}))
        if kind == "cancelled":
            await world.say(task, "cancel_requested", attempt=attempt, by="ann", deadline=4)
        elif kind == "stalled":
            await world.say(task, "started", attempt=attempt, heartbeat=2)
        elif kind == "confirmation_expired":
            await world.say(task, "confirmation_required", attempt=attempt, ask=f"q{attempt}", deadline=4)
        told[task].append(f"task_{kind}")
        with trio.fail_after(60):  # shares may move several times before the silence is long enough
            while len(await world.timer_event_names(task)) < len(told[task]):
                await trio.sleep(0.2)
        await world.say(task, "started", attempt=attempt + 1000, heartbeat=1e6, timeout=1e6)
        await world.say(task, "completed", attempt=attempt + 1000)
        return


@pytest.mark.parametrize("run", range(6))
async def test_however_shares_move_every_timer_event_is_told_and_none_twice(
    autojump_clock: MockClock, world: World, run: int
) -> None:
    seed = new_seed()
    tasks = [f"t{number}" for number in range(40)]
    told: dict[str, list[str]] = {task: [] for task in tasks}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run_monitor, MemoryBus(world.broker))
        for number in range(3):
            nursery.start_soon(come_and_go, world, random.Random(f"{seed}/worker {number}"))
        async with trio.open_nursery() as producers:
            for task in tasks:
                producers.start_soon(produce, world, random.Random(f"{seed}/{task}"), task, told)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    for task in tasks:
        assert await world.timer_event_names(task) == told[task], task
        messages = [msgspec.json.decode(stored.payload)["e"] for stored in await world.stored(f"task:{task}")]
        assert messages[-1] == "task_completed"
    assert await world.running() == set()


# --- what is left when shares cannot be given back ----------------------------------------------------------------


class ReluctantBus(MemoryBus):
    """The bus of a worker whose leases cannot be written for a while, or whose reads take their time."""

    frozen = False
    seconds = 0.0

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        if self.frozen:
            raise BusError("JetStream does not answer yet")
        return await super().kv_update(bucket, key, value, revision)

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        await trio.sleep(self.seconds if bucket is Bucket.RUNNING else 0)
        return await super().kv_entries(bucket, prefix, after)


async def test_shares_that_cannot_be_given_back_are_read_again_all_the_same_after_a_stream_went_back(
    autojump_clock: MockClock, world: World
) -> None:
    bus = ReluctantBus(world.broker)
    tasks = [f"t{number}" for number in range(20)]
    async with world.running_monitor(bus):
        await world.until_held()
        for task in tasks:
            await world.say(task, "started", timeout=30)
        await trio.sleep(1)
        last = (await bus.stream_state("task:")).last
        for task in tasks:
            await world.say(task, "completed")
        await trio.sleep(1)
        bus.frozen = True
        world.broker.streams["task"].rewind(last)
        bus.on_loss(world.broker.clock())
        await trio.sleep(1)
        bus.frozen = False
        await trio.sleep(60)
        for task in tasks:
            assert await world.timer_event_names(task) == ["task_timeout"], task


async def test_when_the_holdings_fail_while_shares_are_loaded_all_of_them_are_watched_afterwards(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = ReluctantBus(world.broker)
    bus.seconds = 1
    tasks = [f"t{number}" for number in range(20)]
    for task in tasks:
        await world.say(task, "started", timeout=30)

    def fail(*args: object) -> None:
        bus.frozen = True
        raise ZeroDivisionError

    async with world.running_monitor(bus):
        with monkeypatch.context() as patch:
            await world.until_held()
            patch.setattr(Holdings, "_set_clock", fail)
            await trio.sleep(1)
        bus.frozen = False
        await trio.sleep(60)
        for task in tasks:
            assert await world.timer_event_names(task) == ["task_timeout"], task
