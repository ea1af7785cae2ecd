"""A viewer who comes for the table of running tasks gets it with every task that was stored before."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanline.engine.bus.interface import Respond
from fanline.engine.bus.memory import MemoryBus
from fanline.engine.tasks.monitor.stored.fresh_table import COMPLETE, SUBJECT, FreshTable
from fanline.engine.tasks.monitor.stored.table import ASKED_SECONDS, TABLE_CHANNEL
from tests.engine.tasks.monitor.world import World


def _fresh_table(world: World, workers: int) -> FreshTable:
    return FreshTable(MemoryBus(world.broker), lambda: map(str, range(workers)))


async def _ids(world: World) -> set[str]:
    return {row["id"] for row in (await world.table())["tasks"]}


async def test_the_table_shows_what_was_stored_before_wherever_it_is_monitored(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor(), world.running_monitor():
        await world.until_held()
        await trio.sleep(20)  # until the shares are divided
        assert len(set(await world.holders())) == 2
        fresh = _fresh_table(world, 2)
        said = set[str]()
        for number in range(40):
            await world.say(str(number), "started")
            said.add(str(number))
            with trio.fail_after(0.9):
                await fresh.renew()
            assert await _ids(world) == said


async def test_many_viewers_who_come_together_are_one_question_and_a_few_tables(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await world.until_held()
        fresh = _fresh_table(world, 1)
        await world.say("a", "started")
        before = (await world.bus.stream_state(TABLE_CHANNEL)).last
        began = trio.current_time()
        async with trio.open_nursery() as viewers:
            for _ in range(100):
                viewers.start_soon(fresh.renew)
        assert trio.current_time() - began < 2 * ASKED_SECONDS + 0.2
        assert (await world.bus.stream_state(TABLE_CHANNEL)).last - before <= 2


async def test_nothing_is_published_for_a_viewer_if_nothing_has_changed(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await world.until_held()
        fresh = _fresh_table(world, 1)
        await world.say("a", "started")
        await fresh.renew()
        await trio.sleep(5)
        before = (await world.bus.stream_state(TABLE_CHANNEL)).last
        for _ in range(10):
            await fresh.renew()
        assert (await world.bus.stream_state(TABLE_CHANNEL)).last == before


async def test_a_worker_that_does_not_answer_is_not_waited_for(autojump_clock: MockClock, world: World) -> None:
    await world.bus.answer(SUBJECT, lambda payload, respond: None)
    with trio.fail_after(4):
        await _fresh_table(world, 1).renew()


async def test_a_viewer_who_comes_while_others_are_served_is_served_anew(
    autojump_clock: MockClock, world: World
) -> None:
    """What the round under way has looked at may be older than what the viewer has seen stored."""
    asked, release = 0, trio.Event()
    async with trio.open_nursery() as nursery:
        fresh = _fresh_table(world, 1)

        async def answer_later(respond: Respond) -> None:
            await release.wait()
            respond(COMPLETE)

        def take(payload: bytes, respond: Respond) -> None:
            nonlocal asked
            asked += payload == b"leave"
            nursery.start_soon(answer_later, respond)

        await world.bus.answer(SUBJECT, take)
        async with trio.open_nursery() as viewers:
            viewers.start_soon(fresh.renew)
            await wait_all_tasks_blocked()
            viewers.start_soon(fresh.renew)
            viewers.start_soon(fresh.renew)
            await wait_all_tasks_blocked()
            release.set()
        nursery.cancel_scope.cancel()
    assert asked == 2


async def test_a_table_is_asked_for_again_while_a_share_is_on_its_way_to_another_worker(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.running_monitor():
        await world.until_held()
        await world.say("a", "started")
        async with world.running_monitor():  # it is given its part after two seconds
            fresh = _fresh_table(world, 2)
            said = {"a"}
            for number in range(60):
                await world.say(str(number), "started")
                said.add(str(number))
                await fresh.renew()
                assert await _ids(world) == said
                await trio.sleep(0.1)
            assert len(set(await world.holders())) == 2
