"""The alarms of a cluster: one for all, told once, whoever leads and whenever the leader ends."""

from contextlib import suppress

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.protocol.management.alarms import AlarmState
from fanline.protocol.management.monitor import AlarmKind
from fanline.protocol.notifications.notification import ADMINS
from fanline.workers.configuration.monitor import AlarmSettings
from tests.workers.control.monitoring.told import Told, process

ERRORS = {"errors": AlarmSettings(when="errors_per_minute > 50", calm=0.0)}
BAD, GOOD = {"errors_per_minute": 63.0}, {"errors_per_minute": 3.0}


async def test_an_alarm_is_told_to_admins_when_it_is_raised_and_when_it_is_cleared() -> None:  # S4-81
    broker = MemoryBroker()
    told, alarms = await Told(broker).start(), process(broker, ERRORS)
    for now, values in enumerate([GOOD, BAD, BAD, GOOD, GOOD]):
        await alarms.look(values, 1000.0 + now)
    (raised_event, raised), (cleared_event, cleared) = told.system()
    assert raised_event == cleared_event == "system_performance_alert"
    assert (raised["alarm"], raised["state"], raised["value"]) == ("errors", "raised", 63.0)
    assert raised["message"] == "alarm errors raised: errors_per_minute > 50 (errors_per_minute is 63)"
    assert (cleared["state"], cleared["raised_at"]) == ("cleared", raised["raised_at"])
    levels = [(each["user"], each["level"], each["title"]) for each in told.notifications]
    assert levels == [(ADMINS, "warning", "Alarm errors raised"), (ADMINS, "success", "Alarm errors cleared")]


async def test_two_processes_that_both_believe_to_lead_raise_one_alarm() -> None:
    broker = MemoryBroker()
    told, one, other = await Told(broker).start(), process(broker, ERRORS), process(broker, ERRORS)
    for now in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.look, BAD, 1000.0 + now)
            nursery.start_soon(other.look, BAD, 1000.0 + now)
    assert [data["state"] for _, data in told.system()] == ["raised"]
    assert len({each["id"] for each in told.notifications}) == 1


async def test_an_alarm_that_its_process_could_not_tell_any_more_is_told_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = MemoryBroker()
    told = await Told(broker).start()

    async def fail(*_: object, **__: object) -> None:
        raise BusError("NATS is away")

    with monkeypatch.context() as away, pytest.raises(BusError):
        away.setattr(MemoryBus, "store", fail)
        await process(broker, ERRORS).look(BAD, 1000.0)
    assert told.system() == []
    await process(broker, ERRORS).look(BAD, 1010.0)
    assert [data["state"] for _, data in told.system()] == ["raised"]
    assert (await process(broker, ERRORS).read())["errors"].state is AlarmState.RAISED
    assert await process(broker, ERRORS).raised() == ["errors"]


async def test_an_alarm_that_the_settings_no_longer_have_is_shown_no_more() -> None:
    broker = MemoryBroker()
    await process(broker, ERRORS).look(BAD, 1000.0)
    assert await process(broker, {}).raised() == []


async def test_a_raised_alarm_that_the_settings_no_longer_have_is_told_as_cleared_once() -> None:
    security = {"errors": AlarmSettings(when="errors_per_minute > 50", kind=AlarmKind.SECURITY)}
    broker = MemoryBroker()
    told = await Told(broker).start()
    await process(broker, security).look(BAD, 1000.0)
    for now in (1001.0, 1002.0):
        await process(broker, {}).look(BAD, now)
    (_, raised), (event, cleared) = told.system()
    assert (event, cleared["state"], cleared["rule"]) == ("system_security_alert", "cleared", raised["rule"])
    assert cleared["message"] == "alarm errors cleared: it is no longer in the settings"
    assert [each["title"] for each in told.notifications] == ["Alarm errors raised", "Alarm errors cleared"]
    await process(broker, security).look(BAD, 1003.0)
    assert [data["state"] for _, data in told.system()] == ["raised", "cleared", "raised"]


class Sleeper:
    """`check` of a process that is frozen, for longer than its lease, at its `at`th look at the lease."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise BusError("another one leads")


@pytest.mark.parametrize("at", range(1, 6))
async def test_a_process_that_wakes_without_its_lease_says_and_stores_nothing_more(at: int) -> None:
    """Wherever it was frozen, what it had not said is said by the next one, and what it had said is not repeated."""
    broker = MemoryBroker()
    told, sleeper, after = await Told(broker).start(), process(broker, ERRORS, Sleeper(at)), process(broker, ERRORS)
    with suppress(BusError):
        await sleeper.look(BAD, 1000.0)
    said = [data["state"] for _, data in told.system()]
    with suppress(BusError):
        await sleeper.look(GOOD, 1001.0)
    assert [data["state"] for _, data in told.system()] == said
    await after.look(BAD, 1002.0)
    await after.look(GOOD, 1003.0)
    assert [data["state"] for _, data in told.system()] == ["raised", "cleared"]


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("was_raised", [False, True])
async def test_a_change_that_was_not_told_is_told_before_the_next_one(at: int, was_raised: bool) -> None:
    """Though the value has changed back by the time that another process leads."""
    broker = MemoryBroker()
    told, sleeper, after = await Told(broker).start(), process(broker, ERRORS, Sleeper(at)), process(broker, ERRORS)
    await after.look(BAD if was_raised else GOOD, 1000.0)
    changed, back = (GOOD, BAD) if was_raised else (BAD, GOOD)
    with suppress(BusError):
        await sleeper.look(changed, 1001.0)
    await after.look(back, 1002.0)
    await after.look(GOOD, 1003.0)
    states = [data["state"] for _, data in told.system()]
    assert states == ["raised", "cleared"] * (len(states) // 2)
    titles = list({each["id"]: each["title"] for each in told.notifications}.values())
    assert titles == [f"Alarm errors {state}" for state in states]


async def test_a_process_that_has_counted_for_less_than_a_minute_takes_its_counts_for_the_least_there_was() -> None:
    quiet = AlarmSettings(when="commands_per_minute < 100", calm=0.0)
    share = AlarmSettings(when="error_percent > 10", calm=0.0)
    broker = MemoryBroker()
    alarms = process(broker, {**ERRORS, "quiet": quiet, "share": share})
    await alarms.look({"commands_per_minute": 20.0, **GOOD}, 1000.0, is_whole=False)
    assert await alarms.raised() == []
    await alarms.look({"commands_per_minute": 20.0, "error_percent": 20.0, **BAD}, 1010.0, is_whole=False)
    assert await alarms.raised() == ["errors", "share"]
    await alarms.look({"commands_per_minute": 20.0, **GOOD}, 1020.0)
    assert await alarms.raised() == ["quiet"]
    await alarms.look(BAD, 1030.0)
    after = process(broker, alarms.settings)
    await after.look({"commands_per_minute": 20.0, **GOOD}, 1040.0, is_whole=False)
    assert await after.raised() == ["errors"]
    await after.look({"commands_per_minute": 200.0, **GOOD}, 1100.0)
    assert await after.raised() == []
