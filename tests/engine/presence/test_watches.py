"""How a worker follows a channel: what is lost is found, what is dead is dropped, what nobody needs ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import Namespaces
from fanline.engine.presence.presence import Presence
from fanline.engine.presence.questions import delta_subject
from fanline.engine.presence.watches import ANSWER_SECONDS, COMPARE_SECONDS, LOOK_SECONDS, REST_SECONDS, SILENT_SECONDS
from tests.engine.parts import Parts
from tests.engine.presence.users import NAMESPACES

ROOM = "room:1"


class StubMembers:
    """Workers that are live as a test says."""

    def __init__(self, worker: str, live: set[str]) -> None:
        self.id = worker
        self._live = live

    def live(self) -> dict[str, Any]:
        return dict.fromkeys(self._live)


class LossyBus(MemoryBus):
    """Loses what is told while `deaf`."""

    deaf = False

    def tell(self, subject: str, payload: bytes) -> None:
        if not self.deaf:
            super().tell(subject, payload)


class WatchCluster:
    """Two workers. Time jumps."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.broker = MemoryBroker(Namespaces(NAMESPACES))
        self.live = {"one", "other"}
        self.buses = {worker: LossyBus(self.broker) for worker in ("one", "other")}
        self.nursery = nursery
        self.one = self._start("one")
        self.other = self._start("other")

    def _start(self, worker: str) -> Presence:
        bus, namespaces = self.buses[worker], Namespaces(NAMESPACES)
        parts = Parts(bus, self.nursery, namespaces)
        members = cast("Any", StubMembers(worker, self.live))
        presence = Presence(
            bus, parts.router, parts.hub, members, namespaces, parts.faults, self.nursery, limit=100, timeout=5.0
        )
        self.nursery.start_soon(presence.run)
        self.nursery.start_soon(presence.watches.run)
        return presence

    async def users(self) -> list[str]:
        """Those on the channel, as worker one sees it."""
        async with self.one.watches.following(ROOM) as watch:
            return sorted(user.user_id for user in watch.roster.users())


@asynccontextmanager
async def watch_cluster() -> AsyncIterator[WatchCluster]:
    async with trio.open_nursery() as nursery:
        cluster = WatchCluster(nursery)
        await trio.testing.wait_all_tasks_blocked()
        yield cluster
        nursery.cancel_scope.cancel()


async def test_a_delta_that_was_lost_is_found_by_the_next_one(autojump_clock: trio.abc.Clock) -> None:
    async with watch_cluster() as cluster:
        cluster.other.enter(ROOM, "ann", None)
        assert await cluster.users() == ["ann"]
        await trio.sleep(0.5)
        cluster.buses["other"].deaf = True
        cluster.other.enter(ROOM, "bob", None)
        await trio.sleep(0.5)
        cluster.buses["other"].deaf = False
        cluster.other.enter(ROOM, "cid", None)
        await trio.sleep(0.5)
        assert await cluster.users() == ["ann", "bob", "cid"]


async def test_a_delta_that_was_lost_and_has_no_successor_is_found_by_a_comparison(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with watch_cluster() as cluster:
        cluster.other.enter(ROOM, "ann", None)
        async with cluster.one.watches.following(ROOM):
            await trio.sleep(2 * LOOK_SECONDS)
            cluster.buses["other"].deaf = True
            cluster.other.leave(ROOM, "ann")
            await trio.sleep(1)
            cluster.buses["other"].deaf = False
            assert await cluster.users() == ["ann"]
            await trio.sleep(COMPARE_SECONDS)
            assert await cluster.users() == []


async def test_a_worker_that_dies_takes_its_users_away_and_is_not_heard_any_more(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with watch_cluster() as cluster, cluster.one.watches.following(ROOM):
        cluster.other.enter(ROOM, "ann", None)
        cluster.one.enter(ROOM, "bob", None)
        await trio.sleep(2)
        assert await cluster.users() == ["ann", "bob"]
        cluster.live.discard("other")
        await trio.sleep(6)
        assert await cluster.users() == ["bob"]
        cluster.other.enter(ROOM, "cid", None)
        await trio.sleep(2)
        assert await cluster.users() == ["bob"]
        cluster.live.add("other")
        await trio.sleep(3)
        assert await cluster.users() == ["ann", "bob", "cid"]


async def test_a_worker_that_was_not_known_when_all_were_asked_is_found(autojump_clock: trio.abc.Clock) -> None:
    async with watch_cluster() as cluster:
        cluster.live.discard("other")
        cluster.other.enter(ROOM, "ann", None)
        await trio.sleep(2)
        async with cluster.one.watches.following(ROOM):
            assert await cluster.users() == []
            cluster.live.add("other")
            await trio.sleep(3)
            assert await cluster.users() == ["ann"]


async def test_a_channel_that_nobody_needs_is_not_followed_for_long(autojump_clock: trio.abc.Clock) -> None:
    async with watch_cluster() as cluster:
        await cluster.users()
        await trio.sleep(REST_SECONDS / 2)
        assert len(cluster.one.watches) == 1
        assert delta_subject(ROOM) in cluster.buses["one"].answerers
        await trio.sleep(REST_SECONDS)
        assert len(cluster.one.watches) == 0
        assert delta_subject(ROOM) not in cluster.buses["one"].answerers


async def test_a_worker_that_does_not_answer_is_waited_for_a_second_and_asked_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watch_cluster() as cluster:
        cluster.other.enter(ROOM, "ann", None)
        await trio.sleep(1)
        begun = trio.current_time()
        with monkeypatch.context() as patch:
            patch.setattr(cluster.other._attendance, "snapshot", lambda name: 1 / 0)
            async with cluster.one.watches.following(ROOM):
                assert trio.current_time() - begun == pytest.approx(1.0)
                assert await cluster.users() == []
        async with cluster.one.watches.following(ROOM):
            await trio.sleep(3)
            assert await cluster.users() == ["ann"]


async def test_without_the_bus_a_query_fails_and_the_next_one_tries_again(autojump_clock: trio.abc.Clock) -> None:
    async with watch_cluster() as cluster:
        cluster.broker.available = False
        for _ in range(2):
            with pytest.raises(BusError, match="who is on room:1 cannot be found out now"):
                await cluster.users()
        cluster.broker.available = True
        cluster.one.enter(ROOM, "ann", None)
        assert await cluster.users() == ["ann"]


async def test_who_has_not_asked_does_not_wait_for_a_worker_that_does_not_answer(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with watch_cluster() as cluster:
        watches, told = cluster.one.watches, list[str]()
        answered = [watches.all_answer]
        cluster.live.add("dead")
        asked = trio.current_time()
        async with watches.following(ROOM):
            assert trio.current_time() - asked >= ANSWER_SECONDS
        answered.append(watches.all_answer)
        watches.when_ready(ROOM, lambda watch: told.append(watch.name))
        watches.when_ready("room:2", lambda watch: told.append(watch.name))
        assert told == [ROOM]  # which is followed already
        await trio.sleep(2 * ANSWER_SECONDS)
        assert told == [ROOM, "room:2"]
        cluster.live.discard("dead")
        await trio.sleep(SILENT_SECONDS)
        assert [*answered, watches.all_answer] == [True, False, True]
