"""A user's oldest connection makes room for a new one on any worker, but seldom; and the law of all places."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.access import user_places
from fanline.engine.access.identity import AccessError, Identity
from fanline.engine.access.user_places import Place, PlaceRule, PlacesEntry, TakenPlace, UserPlaces
from fanline.engine.bus.interface import Answerer
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.cluster.members import Members
from fanline.engine.counters import Counters
from fanline.engine.limits import LimitHits
from fanline.protocol.auth.rights import Grants
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.nats.names import Bucket
from tests.support.seeds import new_seed

ONE = PlaceRule(1, replace=True)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is Trio's, which jumps."""
    monkeypatch.setattr("time.time", lambda: 1.7e9 + trio.current_time())


class SlowBus(MemoryBus):
    """A bus on which everything takes a while, which differs."""

    chance = random.Random(0)

    async def _reach_broker(self) -> None:
        await trio.sleep(self.chance.uniform(0, 0.02))
        await super()._reach_broker()


class LateBus(SlowBus):
    """A bus that confirms a place a second after it was written."""

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        written = await super().kv_update(bucket, key, value, revision)
        if bucket is Bucket.PLACES:
            await trio.sleep(1.0)
        return written


class DeafBus(SlowBus):
    """Of a worker that hangs: it is asked, and says nothing."""

    async def answer(self, subject: str, take: Answerer | None, *, shared: bool = False) -> None:
        await super().answer(subject, (lambda payload, respond: None) if take else None, shared=shared)


class Connection:
    """What has a place."""

    def __init__(self, live: set["Connection"]) -> None:
        self.ended_with: CloseReason | None = None
        self._live = live
        self.place: Place | None = None

    def close(self, reason: CloseReason) -> None:
        self.ended_with = reason
        self._live.discard(self)


class Worker:
    """The places of one worker, and the connections that have them."""

    def __init__(self, broker: MemoryBroker, kind: type[MemoryBus]) -> None:
        bus = kind(broker)
        self.members = Members(bus)
        self.places = UserPlaces(bus, self.members, lambda identity: None, LimitHits(Counters()))
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.members.run)
                nursery.start_soon(self.places.run)


class World:
    """Two workers of a cluster, and the connections that are live."""

    def __init__(self, second: type[MemoryBus] = SlowBus) -> None:
        self.broker = MemoryBroker(clock=lambda: 0.0)
        self.workers = [Worker(self.broker, SlowBus), Worker(self.broker, second)]
        self.live: set[Connection] = set()

    async def come(self, worker: int, rule: PlaceRule = ONE, most: int | None = None) -> Connection:
        """Connect as anna. AccessError."""
        identity = Identity(user="anna", grants=Grants(), connections=most)
        connection, places = Connection(self.live), self.workers[worker].places
        connection.place = await places.take(identity, rule)
        self.live.add(connection)
        places.hold(connection.place, connection)
        return connection

    def leave(self, worker: int, connection: Connection) -> None:
        connection.close(CloseReason.NORMAL)
        self.workers[worker].places.give_back(connection.place)

    async def refused(self, worker: int, rule: PlaceRule = ONE, most: int | None = None) -> ErrorCode:
        with pytest.raises(AccessError) as refusal:
            await self.come(worker, rule, most)
        return refusal.value.code

    async def taken(self) -> list[TakenPlace]:
        entries = await MemoryBus(self.broker).kv_entries(Bucket.PLACES)
        return [each for entry in entries.values() for each in msgspec.json.decode(entry.value, type=PlacesEntry).taken]


@asynccontextmanager
async def running(second: type[MemoryBus] = SlowBus) -> AsyncIterator[World]:
    world = World(second)
    async with trio.open_nursery() as nursery:
        for worker in world.workers:
            nursery.start_soon(worker.run)
        await trio.sleep(5)
        yield world
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("worker", [0, 1])
async def test_the_oldest_connection_makes_room_on_whichever_worker_it_is(
    autojump_clock: MockClock, worker: int
) -> None:
    async with running() as world:
        rule = PlaceRule(2, replace=True)
        first, second = await world.come(worker, rule), await world.come(0, rule)
        third = await world.come(1, rule)
        assert (first.ended_with, second.ended_with, third.ended_with) == (CloseReason.REPLACED, None, None)
        await trio.sleep(30)
        assert len(await world.taken()) == 2


async def test_one_connection_of_a_user_is_replaced_within_a_minute(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.come(0)
        second = await world.come(1)
        assert await world.refused(0) is ErrorCode.LIMIT_EXCEEDED
        assert second.ended_with is None
        await trio.sleep(user_places.REPLACE_SECONDS)
        await world.come(0)
        assert second.ended_with is CloseReason.REPLACED


async def test_of_many_that_come_at_once_one_replaces_the_oldest(autojump_clock: MockClock) -> None:
    async with running() as world:
        oldest = await world.come(0)
        codes: list[ErrorCode | None] = []

        async def try_to_come(worker: int) -> None:
            try:
                await world.come(worker)
            except AccessError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(try_to_come, number % 2)
        assert codes == [ErrorCode.LIMIT_EXCEEDED] * 19
        assert oldest.ended_with is CloseReason.REPLACED
        assert len(world.live) == 1


async def test_places_of_different_routes_are_counted_apart_and_replaced_apart(autojump_clock: MockClock) -> None:
    async with running() as world:
        chat, tasks = PlaceRule(1, where="/chat"), PlaceRule(1, replace=True, where="/tasks/{id}")
        await world.come(0, chat)
        oldest = await world.come(0, tasks)
        await world.come(1, tasks)
        assert oldest.ended_with is CloseReason.REPLACED
        assert await world.refused(1, chat) is ErrorCode.LIMIT_EXCEEDED


async def test_the_number_of_a_token_counts_over_all_routes(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.come(0, PlaceRule(5, where="/a"), most=2)
        await world.come(1, PlaceRule(5, where="/b"), most=2)
        assert await world.refused(0, PlaceRule(5, where="/a"), most=2) is ErrorCode.LIMIT_EXCEEDED
        assert await world.refused(0, PlaceRule(5, replace=True, where="/c"), most=2) is ErrorCode.LIMIT_EXCEEDED
        await world.come(0, PlaceRule(5, replace=True, where="/b"), most=2)


async def test_a_connection_that_is_replaced_before_it_is_open_is_closed_when_it_opens(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        identity = Identity(user="anna", grants=Grants())
        place = await world.workers[0].places.take(identity, ONE)
        await world.come(1)
        late = Connection(world.live)
        world.workers[0].places.hold(place, late)
        assert late.ended_with is CloseReason.REPLACED


async def test_a_place_may_be_replaced_before_its_own_worker_knows_that_it_has_it(autojump_clock: MockClock) -> None:
    async with running(LateBus) as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.come, 1)
        await trio.sleep(0.5)
        newcomer = await world.come(0)
        await trio.sleep(1.0)
        assert world.live == {newcomer}


async def test_while_the_worker_of_the_oldest_hangs_nobody_gets_in_in_its_place(autojump_clock: MockClock) -> None:
    async with running(DeafBus) as world:
        oldest = await world.come(1)
        assert await world.refused(0) is ErrorCode.UNAVAILABLE
        assert oldest in world.live


async def test_the_oldest_of_a_dead_worker_makes_room_without_being_asked(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.come(1)
        world.live.clear()
        world.workers[1].scope.cancel()
        await trio.sleep(10)
        await world.come(0)
        await world.come(0)  # nothing has been replaced before


async def test_a_newcomer_that_ends_meanwhile_leaves_no_place_taken(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.come(0)
        second = await world.come(1)
        world.leave(1, second)
        await trio.sleep(30)
        assert await world.taken() == []


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("most", [1, 3])
async def test_whatever_comes_and_goes_no_more_are_live_than_may_be(
    autojump_clock: MockClock, replace: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_places, "REPLACE_SECONDS", 0.2)
    chance = SlowBus.chance = random.Random(new_seed())
    rule = PlaceRule(most, replace=replace)
    seen: list[int] = []

    async def visit(world: World) -> None:
        for _ in range(20):
            await trio.sleep(chance.uniform(0, 0.5))
            worker = chance.randrange(2)
            try:
                connection = await world.come(worker, rule)
            except AccessError:
                continue
            seen.append(len(world.live))
            await trio.sleep(chance.uniform(0, 0.5))
            world.leave(worker, connection)

    async with running() as world:
        async with trio.open_nursery() as visits:
            for _ in range(8):
                visits.start_soon(visit, world)
        await trio.sleep(30)
        assert max(seen) == most
        assert await world.taken() == []
