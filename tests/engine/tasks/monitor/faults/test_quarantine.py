"""A task with which the monitor cannot deal is left alone for a while by each worker; no other task notices."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.faults import QUARANTINE_SECONDS, RESTART_SECONDS
from fanline.engine.tasks import timers
from fanline.engine.tasks.monitor import monitored_task, roster
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.stored import entry, records, restorer, table
from tests.engine.tasks.monitor.world import World
from tests.support.faults.breaking import breaking, faults_logged

BAD, GOOD = "bad", "good"


def names_bad(*args: Any) -> bool:
    """Whether the channel, or the task, that comes first among the arguments is the bad one."""
    first = args[0]
    return (first.channel if isinstance(first, MonitoredTask) else first) == f"task:{BAD}"


def titled_bad(*args: Any) -> bool:
    return bool(args[0].title == BAD)


POISONED: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "the rule of its timers": (monitored_task, "decide", titled_bad),
    "its next deadline": (monitored_task, "next_deadline", titled_bad),
    "its entry": (records, "encode_entry", names_bad),
    "its row in the table": (table, "_row", names_bad),
    "its chores": (MonitoredTask, "is_record_due", names_bad),
}


@pytest.mark.parametrize("what", POISONED)
async def test_a_poisoned_task_is_left_alone_and_the_others_are_monitored_in_every_worker(
    autojump_clock: MockClock,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    where, name, is_poisoned = POISONED[what]
    workers = 3
    with monkeypatch.context() as patch:
        patch.setattr(where, name, breaking(getattr(where, name), is_poisoned))
        await world.say(BAD, "started", title=BAD, heartbeat=1, timeout=60)
        for worker in range(workers):
            async with world.running_monitor():
                task = f"{GOOD}{worker}"
                await world.say(task, "started", title=GOOD, timeout=3)
                await world.say(BAD, "progress", percent=worker)
                await trio.sleep(6)
                assert await world.timer_event_names(task) == ["task_timeout"]
                assert all(await world.holders())
    assert len(faults_logged(caplog)) == workers
    assert all(line.startswith(f"task:{BAD}: ") for line in faults_logged(caplog))
    async with world.running_monitor():
        await world.say(BAD, "progress", percent=99)
        await trio.sleep(60)
        assert "task_timeout" in await world.timer_event_names(BAD)


async def test_when_its_quarantine_is_over_a_task_is_restored_with_all_that_it_has_said_meanwhile(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running_monitor():
        await world.until_held()
        with monkeypatch.context() as patch:
            patch.setattr(monitored_task, "next_deadline", breaking(timers.next_deadline, titled_bad))
            await world.say(BAD, "started", title=BAD)
            await trio.sleep(1)
        await world.say(BAD, "output", lines=["meanwhile"])
        world.broker.beat(f"task:{BAD}")
        await world.say(BAD, "started", timeout=QUARANTINE_SECONDS + 5)
        await trio.sleep(QUARANTINE_SECONDS / 2)
        assert await world.record(BAD) is None
        await trio.sleep(QUARANTINE_SECONDS / 2 + 7)
        assert "task_timeout" in await world.timer_event_names(BAD)
        record = await world.record(BAD)
        assert record is not None
        assert record["output"][0]["lines"] == ["meanwhile"]
    assert len(faults_logged(caplog)) == 1


@pytest.mark.parametrize(("where", "name"), [(restorer, "read_record"), (entry, "read_entry"), (roster, "is_channel")])
async def test_what_is_stored_of_a_task_and_cannot_be_dealt_with_stops_no_other(
    autojump_clock: MockClock,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: Any,
    name: str,
) -> None:
    async with world.running_monitor():
        await world.say(BAD, "started", title=BAD)
        await trio.sleep(1)

    def is_poisoned(*args: Any) -> bool:
        return BAD in repr(args)

    monkeypatch.setattr(where, name, breaking(getattr(where, name), is_poisoned))
    for worker in range(2):
        async with world.running_monitor():
            task = f"{GOOD}{worker}"
            await world.say(BAD, "progress", percent=worker)
            await world.say(task, "started", timeout=3)
            await trio.sleep(6)
            assert await world.timer_event_names(task) == ["task_timeout"]
    assert len(faults_logged(caplog)) <= 2


async def test_a_part_of_the_monitor_that_fails_begins_again_and_the_shares_are_kept(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    async with world.running_monitor():
        await world.until_held()
        before = await world.holders()
        with monkeypatch.context() as patch:
            patch.setattr("fanline.engine.tasks.monitor.monitor.newest_offsets", fail)
            patch.setattr("fanline.engine.tasks.monitor.stored.table.table", fail)
            await world.say("a", "started", timeout=1)
            await trio.sleep(2)
        await trio.sleep(RESTART_SECONDS + 1)
        assert await world.timer_event_names("a") == ["task_timeout"]
        assert await world.holders() == before
        assert (await world.table())["total"] == 0
    assert [line.partition(":")[0] for line in faults_logged(caplog)] == ["the table of tasks", "the timers of tasks"]


async def test_when_storing_timer_events_fails_those_that_were_still_to_be_stored_are_due_again(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fanline.engine.tasks.monitor.monitor.MULTI_LAST", 1)
    tasks = ["a", "b", "c"]
    async with world.running_monitor():
        await world.until_held()
        with monkeypatch.context() as patch:
            patch.setattr("fanline.engine.tasks.monitor.monitor.newest_offsets", fail)
            for task in tasks:
                await world.say(task, "started", timeout=1)
            await trio.sleep(2)
        await trio.sleep(RESTART_SECONDS + 30)
        assert [await world.timer_event_names(task) for task in tasks] == 3 * [["task_timeout"]]
