"""Keys of the management API: when one is read again, and when what was read of it will do."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.access.keys.api_keys import HELD_SECONDS, ApiKeys
from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import KvEntry
from fanline.protocol.auth.api_keys import ApiRight, ShownKey, read_key
from fanline.protocol.nats.names import Bucket


class CountingBus(MemoryBus):
    """Counts how often a key is read. `while_reading` is called between a read and its answer."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.found = 0
        self.is_up = True
        self.while_reading: Callable[[], object] = lambda: None

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        self.found += 1
        entry = await super().kv_get(bucket, key)
        self.while_reading()
        return entry

    def kv_is_watched(self, bucket: Bucket) -> bool:
        return self.is_up and super().kv_is_watched(bucket)


class World:
    """One server that follows the keys, and another that changes them."""

    def __init__(self) -> None:
        broker = MemoryBroker()
        self.bus = CountingBus(broker)
        self.keys, self.others = ApiKeys(self.bus), ApiKeys(MemoryBus(broker))
        self.id = ""
        self.shown = ShownKey("", "")

    async def make_key(self, expires: float | None = None) -> None:
        self.id, text, _ = await self.others.create("one", [ApiRight.READ], expires)
        shown = read_key(text)
        assert shown is not None
        self.shown = shown

    async def is_accepted(self) -> bool:
        return await self.keys.find(self.shown) is not None

    async def reads(self, count: int) -> int:
        """How often the key is read while it is used so many times."""
        before = self.bus.found
        for _ in range(count):
            assert await self.is_accepted()
        return self.bus.found - before


@pytest.fixture
async def world(autojump_clock: MockClock) -> World:
    world = World()
    await world.make_key()
    await world.keys.watch()
    return world


async def test_a_key_in_use_is_read_once_a_second_while_changes_are_heard(world: World) -> None:
    assert await world.reads(200) == 1
    await trio.sleep(HELD_SECONDS)
    assert await world.reads(200) == 1


async def test_a_revoked_key_is_refused_as_soon_as_its_change_is_heard(world: World) -> None:
    assert await world.is_accepted()
    await world.others.revoke(world.id)
    assert not await world.is_accepted()


async def test_a_key_is_read_each_time_while_changes_may_be_missed(world: World) -> None:
    assert await world.is_accepted()
    world.bus.is_up = False
    assert await world.reads(3) == 3
    world.keys.interrupted()
    world.bus.is_up = True
    assert await world.reads(3) == 3  # the next ones may come from a copy of the store that is behind
    await trio.sleep(HELD_SECONDS)
    assert await world.reads(3) == 1


async def test_a_key_is_read_each_time_by_a_process_that_follows_no_changes(autojump_clock: MockClock) -> None:
    world = World()
    await world.make_key()
    assert await world.reads(3) == 3


async def test_a_key_that_is_revoked_while_it_is_read_is_not_held(world: World) -> None:
    world.bus.while_reading = lambda: world.bus.broker.write(Bucket.API_KEYS, world.id, b"")
    assert await world.is_accepted()  # it was, when the store was asked
    world.bus.while_reading = lambda: None
    assert not await world.is_accepted()


async def test_what_a_copy_of_the_store_says_soon_after_a_change_is_not_held(world: World) -> None:
    entry = world.bus.broker.find(Bucket.API_KEYS, world.id)
    assert entry is not None
    await world.others.revoke(world.id)
    world.bus.broker.buckets[Bucket.API_KEYS, world.id] = world.bus.broker.buckets[Bucket.API_KEYS, world.id]._replace(
        entry=entry
    )  # this copy has not got the change yet
    assert await world.reads(2) == 2


async def test_a_change_that_is_never_heard_takes_effect_within_a_second(world: World) -> None:
    assert await world.is_accepted()
    watcher = world.bus.watchers.pop(Bucket.API_KEYS)
    await world.others.revoke(world.id)
    world.bus.watchers[Bucket.API_KEYS] = watcher
    await trio.sleep(HELD_SECONDS)
    assert not await world.is_accepted()


async def test_a_held_key_still_needs_its_secret_and_expires_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("fanline.engine.access.keys.api_keys.time.time", lambda: now)
    await world.make_key(expires=1000.5)
    await trio.sleep(HELD_SECONDS)
    assert await world.reads(2) == 1
    assert await world.keys.find(ShownKey(world.id, "x" * 43)) is None
    now += 0.5
    assert not await world.is_accepted()
    assert world.bus.found == 1


async def test_without_the_bus_no_key_is_accepted(world: World) -> None:
    assert await world.is_accepted()
    world.bus.broker.available = False
    with pytest.raises(BusError):
        await world.is_accepted()
