"""Who is live: workers that come, end, die, or cannot reach the bus."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import KvEntry
from fanline.engine.cluster.members import EXPIRY_SECONDS, SIGN_SECONDS, SILENT_LOOKS, Members
from fanline.protocol.nats.names import Bucket


@asynccontextmanager
async def running(broker: MemoryBroker, name: str = "") -> AsyncIterator[Members]:
    members = Members(MemoryBus(broker), name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(members.run)
        yield members
        nursery.cancel_scope.cancel()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


async def test_live_workers_know_each_other_and_what_they_say_of_themselves(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker, "worker-0") as one, running(broker, "worker-1") as other:
        assert not one.known
        await trio.sleep(1.5)
        for members in (one, other):
            assert members.known
            assert {member.name for member in members.live().values()} == {"worker-0", "worker-1"}
            assert set(members.live()) == {one.id, other.id}
        (entry,) = (broker.find(Bucket.WORKERS, one.id),)
        assert entry is not None
        said = msgspec.json.decode(entry.value)
        assert (said["name"], set(said)) == ("worker-0", {"host", "pid", "name", "server", "started"})


async def test_a_worker_that_ends_is_gone_at_once_and_one_that_dies_within_its_expiry(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one:
        async with running(broker):
            await trio.sleep(5)
            assert len(one.live()) == 2
        await trio.sleep(1.1)
        assert len(one.live()) == 1
        await MemoryBus(broker).kv_put(Bucket.WORKERS, "dead", b"{}", EXPIRY_SECONDS)
        await trio.sleep(1.1)
        assert len(one.live()) == 2
        await trio.sleep(EXPIRY_SECONDS)
        assert len(one.live()) == 1


async def test_an_entry_that_came_back_proves_no_worker(autojump_clock: MockClock, broker: MemoryBroker) -> None:
    await MemoryBus(broker).kv_put(Bucket.WORKERS, "dead", b"{}", 600)
    async with running(broker) as one, running(broker) as other:
        await trio.sleep(SIGN_SECONDS * (SILENT_LOOKS - 1))
        assert set(one.others) == {"dead", other.id}
        assert set(one.proven) == {other.id}


async def test_a_worker_is_steady_when_it_has_been_live_for_a_while(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one, running(broker) as other:
        await trio.sleep(1.5)
        assert one.steady(2) == {one.id}
        await trio.sleep(2)
        assert one.steady(2) == {one.id, other.id}


async def test_after_an_outage_no_worker_is_given_up_before_it_could_sign_in_again(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one, running(broker) as other:
        await trio.sleep(5)
        broker.available = False
        await trio.sleep(30)
        assert (one.known, len(one.live())) == (False, 2)
        broker.available = True
        for _ in range(100):
            assert set(one.live()) == set(other.live()) == {one.id, other.id}
            assert one.steady(2) == {one.id, other.id}
            await trio.sleep(0.1)


async def test_what_another_version_or_program_writes_is_a_member_all_the_same(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one:
        bus = MemoryBus(broker)
        await bus.kv_put(Bucket.WORKERS, "newer", b'{"name":"x","colour":"red"}', 60)
        await bus.kv_put(Bucket.WORKERS, "odd", b"[", 60)
        await bus.kv_put(Bucket.WORKERS, "deep", b'{"x":' * 100_000, 60)
        await bus.kv_put(Bucket.WORKERS, "bytes", b'{"name":"\xff"}', 60)
        await trio.sleep(1.5)
        names = {worker: one.live()[worker].name for worker in ("newer", "odd", "deep", "bytes")}
        assert names == {"newer": "x", "odd": "", "deep": "", "bytes": ""}


async def test_an_entry_that_never_expires_keeps_no_dead_worker_live(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    # Expired entries come back when nats-server is killed, and stay: also those from before a worker's start.
    long_dead = await MemoryBus(broker).kv_put(Bucket.WORKERS, "long-dead", b"{}", 3600)
    async with running(broker) as one:
        async with running(broker) as other:
            await trio.sleep(1.5)
            assert set(one.live()) == {one.id, other.id, "long-dead"}
            await trio.sleep((SILENT_LOOKS + 1) * SIGN_SECONDS)
            assert set(one.live()) == {one.id, other.id}
            await trio.sleep(60)
            assert set(one.live()) == set(other.live()) == {one.id, other.id}
        await trio.sleep(5)
        for revision, worker in enumerate(("long-dead", other.id), long_dead):  # back, as old as they were
            broker.write(Bucket.WORKERS, worker, b"{}", 3600)
            _set_revision(broker, worker, revision)
        for _ in range(100):
            assert set(one.live()) == {one.id}
            await trio.sleep(0.1)
        await MemoryBus(broker).kv_put(Bucket.WORKERS, other.id, b"{}", 3600)  # a sign of life
        await trio.sleep(1.1)
        assert set(one.live()) == {one.id, other.id}


async def test_workers_stay_live_when_the_store_goes_back_to_an_older_state(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one, running(broker) as other:
        await trio.sleep(20)
        broker._revisions = itertools.count(3)  # the next writes get revisions that were used before
        for _ in range(200):
            assert set(one.live()) == set(other.live()) == {one.id, other.id}
            await trio.sleep(0.1)


def _set_revision(broker: MemoryBroker, worker: str, revision: int) -> None:
    entry = broker.buckets[Bucket.WORKERS, worker]
    broker.buckets[Bucket.WORKERS, worker] = entry._replace(entry=entry.entry._replace(revision=revision))


class CountingBus(MemoryBus):
    """Counts how often the bucket is read. `is_up`: whether changes are heard."""

    reads_of_workers = 0
    is_up = True

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        self.reads_of_workers += 1
        return await super().kv_entries(bucket, prefix, after)

    def kv_is_watched(self, bucket: Bucket) -> bool:
        return self.is_up and super().kv_is_watched(bucket)


@asynccontextmanager
async def hearing(broker: MemoryBroker) -> AsyncIterator[tuple[CountingBus, Members]]:
    """A process that is no worker, after its first look."""
    bus = CountingBus(broker)
    members = Members(bus, "control")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(members.watch)
        await trio.sleep(SIGN_SECONDS / 2)
        yield bus, members
        nursery.cancel_scope.cancel()


async def test_who_hears_of_workers_knows_who_comes_and_who_ends_without_asking(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with running(broker) as one, hearing(broker) as (bus, members):
        reads = bus.reads_of_workers
        assert set(await members.look()) == {members.id, one.id}
        async with running(broker) as other:
            await other.wait_signed()
            assert set(await members.look()) == {members.id, one.id, other.id}
        assert set(await members.look()) == {members.id, one.id}
        assert bus.reads_of_workers == reads


async def test_a_worker_that_dies_is_given_up_as_late_as_by_one_that_asks(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with hearing(broker) as (_, members):
        await trio.sleep(EXPIRY_SECONDS)
        await MemoryBus(broker).kv_put(Bucket.WORKERS, "dead", b"{}", EXPIRY_SECONDS)
        assert "dead" in await members.look()
        await trio.sleep(EXPIRY_SECONDS - 0.1)
        assert "dead" in await members.look()
        await trio.sleep(SIGN_SECONDS + 0.1)
        assert "dead" not in await members.look()


async def test_who_may_have_missed_a_worker_asks_until_the_next_look(
    autojump_clock: MockClock, broker: MemoryBroker
) -> None:
    async with hearing(broker) as (bus, members):
        bus.is_up = False
        members.interrupted()
        bus.watchers.clear()
        await MemoryBus(broker).kv_put(Bucket.WORKERS, "unheard", b"{}", EXPIRY_SECONDS)
        bus.watchers[Bucket.WORKERS] = members
        bus.is_up = True
        reads = bus.reads_of_workers
        assert "unheard" in await members.look()
        assert bus.reads_of_workers == reads + 1
        await trio.sleep(SIGN_SECONDS)
        reads = bus.reads_of_workers
        assert "unheard" in await members.look()
        assert bus.reads_of_workers == reads
