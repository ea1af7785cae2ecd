"""The desks of several control processes speak with one voice, and only to those who listen."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.bus.memory import MemoryBus
from fanline.engine.cluster.members import Member, Members
from fanline.engine.namespaces import Namespaces
from fanline.protocol.auth.revocation import REMOVALS, Removal, Revocation, encode_revocation
from fanline.protocol.management.monitor import SUBJECT, Draining, ServerTried, encode_note
from fanline.protocol.nats.names import Bucket
from fanline.workers.configuration.monitor import AlarmSettings, MonitorSettings
from fanline.workers.control.cluster import Cluster
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.announcer import SystemAnnouncer
from fanline.workers.control.monitoring.desk import DeskParts, MonitorDesk
from fanline.workers.control.monitoring.leadership import Leadership
from fanline.workers.control.monitoring.minutes import Minutes
from fanline.workers.control.monitoring.reporter import Reporter
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw
from tests.workers.control.monitoring.told import Told

FAST = MonitorSettings(interval=0.2, sample=0.2, canary=3600.0)
ALARMS = {
    "errors": AlarmSettings(when="errors_per_minute > 5", calm=3600.0),
    "quiet": AlarmSettings(when="connects_per_minute < 1"),  # not yet known: no test takes a minute
    "workers_missing": AlarmSettings(when="workers_missing > 0", hold=1.0, calm=0.0),
}


class Desk:
    """That of one control process."""

    def __init__(self, engine: RunningEngine, workers: int = 1) -> None:
        self.bus = MemoryBus(engine.broker)
        self.members, self.minutes = Members(self.bus, "control"), Minutes(self.bus)
        leadership = Leadership(self.bus, self.members.id)
        announcer = SystemAnnouncer(self.bus, Namespaces(), leadership.check)
        self.reporter = Reporter(announcer)
        parts = DeskParts(
            bus=self.bus,
            cluster=Cluster(self.bus, self.members),
            members=self.members,
            leadership=leadership,
            minutes=self.minutes,
            alarms=Alarms(self.bus, ALARMS, announcer),
            reporter=self.reporter,
            settings=FAST,
            url=f"ws://{engine.host}:{engine.port}/ws",
            workers=workers,
        )
        self.desk = MonitorDesk(parts)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.members.watch)
            nursery.start_soon(self.desk.run)


@asynccontextmanager
async def desks(count: int = 1, workers: int = 1) -> AsyncIterator[tuple[RunningEngine, list[Desk], Told]]:
    with trio.fail_after(60):
        async with running_engine(name="worker-0") as engine, trio.open_nursery() as nursery:
            told = await Told(engine.broker).start()
            found = [Desk(engine, workers) for _ in range(count)]
            for each in found:
                nursery.start_soon(each.run)
            while not any(each.desk.leadership.leads for each in found):
                await trio.sleep(0.01)
            yield engine, found, told
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def watching(engine: RunningEngine) -> AsyncIterator[RawClient]:
    async with connect_raw(engine.host, engine.port) as client:
        await client.upgrade(None, "/ws/admin/monitor")
        assert (await client.json())["type"] == "connection_established"
        yield client


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event says."""
    while not condition():
        await trio.sleep(0.01)


async def heard(client: RawClient, kind: str) -> dict[str, Any]:
    """The next message of a type."""
    while (message := await client.json())["type"] != kind:
        pass
    return message


async def test_whoever_watches_gets_the_numbers_of_the_cluster_again_and_again() -> None:  # S4-27, S4-79, S3-34
    async with desks() as (engine, _, _), watching(engine) as client:
        first = (await heard(client, "stats_update"))["data"]
        assert (first["total_connections"], first["errors"]) == (1, 0)
        await client.say({"type": "odd"})
        assert (await heard(client, "error"))["message"].startswith("odd: ")
        while (data := (await heard(client, "stats_update"))["data"])["errors"] == 0:
            pass
        assert data["workers"] == {"answered": 1, "missing": []}
        assert set(data["per_second"]) >= {"messages_sent", "messages_received", "errors", "abnormal_disconnections"}
        while (data := (await heard(client, "stats_update"))["data"])["flush_seconds"] is None:
            pass
        assert 0 <= data["flush_seconds"] < 1


async def test_two_processes_send_one_line_at_a_time() -> None:
    async with desks(2) as (engine, found, _), watching(engine) as client:
        assert [each.desk.leadership.leads for each in found].count(True) == 1
        times = [(await heard(client, "stats_update"))["timestamp"] for _ in range(8)]
        assert len(set(times)) == 8


async def test_the_last_one_who_watches_ends_it() -> None:
    async with desks() as (engine, (desk,), _):
        async with watching(engine) as client:
            await heard(client, "stats_update")
            assert desk.desk.is_watched
        await until(lambda: not desk.desk.is_watched)


async def test_another_process_goes_on_when_the_one_that_leads_ends() -> None:
    async with running_engine() as engine, trio.open_nursery() as nursery:
        one, other = Desk(engine), Desk(engine)
        scope = trio.CancelScope()

        async def run_one() -> None:
            with scope:
                await one.run()

        with trio.fail_after(30):
            nursery.start_soon(run_one)
            await until(lambda: one.desk.leadership.leads)
            nursery.start_soon(other.run)
            scope.cancel()
            await until(lambda: other.desk.leadership.leads)
            assert not one.desk.leadership.leads
        nursery.cancel_scope.cancel()


async def test_errors_of_clients_raise_an_alarm_and_stand_in_the_record_of_the_minute() -> None:  # S4-81, S4-37
    async with desks(2) as (engine, found, told):
        async with connect_raw(engine.host, engine.port) as client:
            await client.upgrade()
            await client.json()
            while not told.notifications:
                await client.ask({"t": "odd", "i": "1"})
                await trio.sleep(0.02)
        event, data = told.system()[0]
        assert (event, data["alarm"], data["state"]) == ("system_performance_alert", "errors", "raised")
        bus = found[0].bus
        minutes = [int(key) for key in await bus.kv_entries(Bucket.MINUTES)]
        records = (await found[0].minutes.read(minutes)).values()
        assert sum(record.counters.get("errors", 0) for record in records) > 5


async def test_a_worker_that_is_never_replaced_raises_an_alarm_until_there_is_one() -> None:  # S4-81
    async with desks(workers=2) as (engine, (desk,), told):
        async with watching(engine) as client:
            data = (await heard(client, "stats_update"))["data"]
            assert data["workers"] == {"answered": 1, "missing": [f"worker-1 of {desk.members.own.server}"]}
        while not told.system():
            await trio.sleep(0.02)
        async with running_engine(broker=engine.broker, name="worker-1"):
            while len(told.system()) < 2:
                await trio.sleep(0.02)
        assert [(data["alarm"], data["state"]) for _, data in told.system()] == [
            ("workers_missing", "raised"),
            ("workers_missing", "cleared"),
        ]


async def test_the_workers_of_another_server_are_missed_unless_it_was_told_to_end() -> None:
    async with desks() as (engine, (desk,), told):
        member = Member(host="h", pid=7, name="worker-0", server="h/6")
        other = Members(MemoryBus(engine.broker), "worker-0")
        other.own = member

        def alarms() -> list[dict[str, Any]]:
            return [data for _, data in told.system() if "alarm" in data]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            await until(lambda: member in desk.members.others.values())
            desk.bus.tell(SUBJECT, encode_note(ServerTried(server="h/6", seconds=0.1, workers=3)))
            while not alarms():
                await trio.sleep(0.02)
            desk.bus.tell(SUBJECT, encode_note(Draining(id=other.id, server="h/6", host="h", name="worker-0")))
            nursery.cancel_scope.cancel()
        while len(alarms()) < 2:
            await trio.sleep(0.02)
        raised, cleared = alarms()
        assert (raised["value"], cleared["value"], cleared["state"]) == (3.0, 0.0, "cleared")


@pytest.mark.parametrize(
    ("key", "entry", "template"),
    [
        ("x", Revocation(user="anna", before=1.0, until=9e9), "login_state"),
        (f"{REMOVALS}.1", Removal(user="anna", channel="project:7", reason="moved"), "right_changed"),
        (f"{REMOVALS}.2", Removal(user="anna", channel="session:7"), "chat_session_state"),
    ],
)
async def test_a_user_hears_that_a_log_in_or_a_right_was_taken_back(  # S4-83, S4-84
    key: str, entry: Revocation | Removal, template: str
) -> None:
    async with desks() as (engine, _, told):
        await MemoryBus(engine.broker).kv_put(Bucket.REVOKED, key, encode_revocation(entry), 600)
        while not told.notifications:
            await trio.sleep(0.02)
        (asked,) = told.notifications
        assert (asked["user"], asked["template"]) == ("anna", template)


async def test_who_is_called_as_all_users_or_a_group_are_asks_for_no_notification_of_them() -> None:
    async with desks() as (engine, _, told):
        bus = MemoryBus(engine.broker)
        for user in ("*", "@admins", "anna"):
            revocation = Revocation(user=user, before=1.0, until=9e9)
            await bus.kv_put(Bucket.REVOKED, revocation.key, encode_revocation(revocation), 600)
        while "anna" not in (asked := [each["user"] for each in told.notifications]):
            await trio.sleep(0.02)
        assert asked == ["anna"]


async def test_an_outage_of_nats_is_told_when_it_is_over() -> None:  # S2-108
    async with desks() as (_, (desk,), told):
        desk.reporter.bus_is_back(1_000_000.0)
        while not told.system():
            await trio.sleep(0.02)
        event, data = told.system()[0]
        assert (event, data["event"]) == ("system_service_disruption", "nats_lost")
        assert data["seconds"] > 0
        assert told.notifications[0]["level"] == "error"
