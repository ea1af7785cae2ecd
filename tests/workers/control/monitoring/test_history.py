"""What was counted: records of minutes, holes that are said to be holes, and pages."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import Namespaces
from fanline.protocol.management.minutes import MinuteRecord
from fanline.workers.control.monitoring.minutes import Minutes
from tests.workers.control.cluster import Managed, managed

NOW = int(time.time() // 60)
PART = MinuteRecord(seconds=30.0, counters={"errors": 2, "deliveries": 5}, connections=3, workers=2)


async def wait_minutes(cluster: Managed, records: dict[int, MinuteRecord]) -> None:
    minutes = Minutes(cluster.one.bus)
    for minute, record in records.items():
        await minutes.add(minute, record, lambda: None)


async def test_parts_of_a_minute_by_several_processes_are_one_record() -> None:
    broker = MemoryBroker(Namespaces())
    one, other = Minutes(MemoryBus(broker)), Minutes(MemoryBus(broker))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.add, NOW, PART, lambda: None)
        nursery.start_soon(other.add, NOW, PART, lambda: None)
    record = (await one.read([NOW]))[NOW]
    assert (record.seconds, record.counters, record.connections) == (60.0, {"errors": 4, "deliveries": 10}, 3)


async def test_a_minute_in_which_nobody_counted_is_a_hole_and_not_a_row_of_zeros() -> None:  # S4-37
    with trio.fail_after(30):
        async with managed() as cluster:
            await wait_minutes(cluster, {NOW - 5: PART, NOW - 3: PART})
            path = f"/stats/history?from={(NOW - 5) * 60}&to={(NOW - 2) * 60}"
            items = (await cluster.call("GET", path)).json()["items"]
            assert [item["seconds"] for item in items] == [30.0, 0.0, 30.0]
            assert items[1]["stats"] is None
            stats = items[0]["stats"]
            assert (stats["messages_sent"], stats["errors"], stats["connections"]) == (5, 2, 3)
            assert stats["counters"] == {"errors": 2, "deliveries": 5}


async def test_a_minute_that_begins_before_the_end_belongs_to_the_time() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            await wait_minutes(cluster, {NOW - 5: PART, NOW - 4: PART})
            for end, found in [(NOW * 60 - 300, 0), (NOW * 60 - 299.5, 1), (NOW * 60 - 240, 1), (NOW * 60 - 200, 2)]:
                page = (await cluster.call("GET", f"/stats/history?from={(NOW - 5) * 60}&to={end}")).json()
                assert [item["seconds"] for item in page["items"]] == [30.0] * found


async def test_eight_digits_are_a_date_and_no_unix_seconds() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            tomorrow = datetime.fromtimestamp(NOW * 60 + 86400, UTC)
            dates = [f"{tomorrow - timedelta(days=days):%Y%m%d}" for days in (2, 1)]
            page = (await cluster.call("GET", f"/stats/history?from={dates[0]}&to={dates[1]}&step=3600")).json()
            assert len(page["items"]) == 24


async def test_pages_have_every_step_once_and_steps_sum_their_minutes() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            begin = NOW - 60 - (NOW - 60) % 10
            await wait_minutes(cluster, {begin + number: PART for number in range(40)})
            found: list[Any] = []
            after = ""
            while True:
                path = f"/stats/history?from={begin * 60}&to={(begin + 40) * 60}&step=600&limit=3&after={after}"
                page = (await cluster.call("GET", path)).json()
                found += page["items"]
                if page["next"] is None:
                    break
                after = page["next"]
            assert [(item["seconds"], item["stats"]["errors"]) for item in found] == [(300.0, 20)] * 4
            assert len({item["time"] for item in found}) == 4


async def test_without_a_time_it_is_the_last_hour() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            page = (await cluster.call("GET", "/stats/history?limit=500")).json()
            assert (len(page["items"]), page["next"]) == (60, None)


async def test_what_is_no_time_or_no_step_is_refused() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            for query, where in [
                ("from=yesterday", "query.from"),
                ("to=1e999", "query.to"),
                ("to=inf", "query.to"),
                ("from=nan", "query.from"),
                ("step=90", "query.step"),
                ("step=1", "query.step"),
                ("after=x", "query.after"),
            ]:
                answer = await cluster.call("GET", f"/stats/history?{query}")
                assert (answer.status_code, answer.json()["where"]) == (422, where), query


async def test_alarms_are_listed_with_their_rules() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            page = (await cluster.call("GET", "/alarms")).json()
            assert {item["state"] for item in page["items"]} == {"clear"}
            assert "error_percent > 10" in {item["rule"] for item in page["items"]}


async def test_a_process_that_was_frozen_adds_nothing_to_a_minute_that_another_one_counts() -> None:
    def refuse() -> None:
        raise BusError("another one leads")

    minutes = Minutes(MemoryBus(MemoryBroker(Namespaces())))
    with pytest.raises(BusError):
        await minutes.add(NOW, PART, refuse)
    assert await minutes.read([NOW]) == {}
