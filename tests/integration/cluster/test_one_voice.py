"""Alarms, lines of the monitor and counted minutes are those of one process, whoever leads and however it ends."""

import base64
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import trio

from fanline.protocol.nats.names import Bucket, bucket_subject
from fanline.workers.control.monitoring.leadership import DUTY
from tests.integration.cluster.servers import Pair, called, process_of, two_servers
from tests.integration.monitor.test_monitor import MONITOR
from tests.support.nats.client import connect_nats
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.support.servers.serve import kill

SECONDS = 300
INTERVAL = 0.5
ERRORS = 10
SETTINGS = """
[alarms.talk]
when = "active_sessions > 0"
calm = 0
"""
PATIENT = {"FANLINE_HANG_TIMEOUT": "150"}  # a frozen control process is to come back


class Listener:
    """All that a client of the monitor has heard."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.heard: list[dict[str, Any]] = []
        self._more = trio.Event()

    async def run(self) -> None:
        while True:
            self.heard.append(await self._client.json())
            self._more.set()
            self._more = trio.Event()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.heard if each["type"] == kind]

    def alarms(self) -> list[str]:
        return [each["data"]["state"] for each in self.of("system_performance_alert")]

    async def until_alarms(self, *states: str) -> None:
        """Exactly these have been told."""
        while len(self.alarms()) < len(states):
            await self._more.wait()
        assert self.alarms() == list(states)

    async def lines(self, count: int) -> None:
        """Wait for some more lines of statistics."""
        wanted = len(self.of("stats_update")) + count
        while len(self.of("stats_update")) < wanted:
            await self._more.wait()


@asynccontextmanager
async def listening(pair: Pair) -> AsyncIterator[Listener]:
    async with connect_raw(*pair.servers[0].where) as client, trio.open_nursery() as nursery:
        client.answers_pings = True
        await client.upgrade(None, MONITOR)
        listener = Listener(client)
        nursery.start_soon(listener.run)
        yield listener
        nursery.cancel_scope.cancel()


async def leader(pair: Pair) -> int:
    """The control process that leads, once one that runs does."""
    running = {process_of(serve, "control") for serve in pair.servers}
    request = msgspec.json.encode({"last_by_subj": bucket_subject(Bucket.LEASES, DUTY)})
    async with connect_nats(pair.nats.url) as nats:
        while True:
            reply = await nats.ask(f"$JS.API.STREAM.MSG.GET.KV_{Bucket.LEASES}", request)
            if "message" in reply:
                holder = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))["worker"]
                if holder and (pid := int(holder.partition("-")[0])) in running:
                    return pid
            await trio.sleep(0.05)


async def other_than(pair: Pair, old: int) -> int:
    while (pid := await leader(pair)) == old:
        await trio.sleep(0.05)
    return pid


async def counted(pair: Pair, asleep: int | None = None) -> tuple[float, int]:
    """Seconds and errors in all minutes; asked of a server whose control process is not the sleeping one."""
    serve = next(each for each in pair.servers if process_of(each, "control") != asleep)
    steps = (await called(serve, "/stats/history"))["items"]
    assert all(step["seconds"] <= 60.5 for step in steps)
    return sum(step["seconds"] for step in steps), sum((step["stats"] or {}).get("errors", 0) for step in steps)


async def make_errors(pair: Pair, before: int, asleep: int | None = None) -> int:
    """Clients of both servers make errors while a leader counts, and each of them is counted once; their sum."""
    seconds, _ = await counted(pair, asleep)
    while (await counted(pair, asleep))[0] <= seconds:  # until this leader has looked twice
        await trio.sleep(0.1)
    for serve in pair.servers:
        async with connect(*serve.where) as client:
            for number in range(ERRORS // 2):
                assert (await client.ask({"t": "sub", "c": "", "i": str(number)}))["t"] == "err"
    while (found := (await counted(pair, asleep))[1]) < before + ERRORS:
        await trio.sleep(0.1)
    assert found == before + ERRORS
    return found


def are_one_at_a_time(listener: Listener) -> None:
    """No two lines in one interval: a process begins one at each multiple of it, and none before the last is out."""
    times = [datetime.fromisoformat(each["timestamp"]).timestamp() for each in listener.of("stats_update")]
    assert max(Counter(int(each / INTERVAL) for each in times).values()) == 1


async def test_a_leader_that_is_frozen_past_its_lease_or_killed_leaves_one_alarm_one_line_and_each_minute_once() -> (
    None
):
    with trio.fail_after(SECONDS):
        async with two_servers(SETTINGS, env=PATIENT) as pair, listening(pair) as listener:
            await listener.lines(2)
            first = await leader(pair)
            total = await make_errors(pair, 0)
            async with connect(*pair.servers[1].where) as talking:
                assert (await talking.ask({"t": "sub", "c": "session:1", "i": "1"}))["t"] == "ok"
                await listener.until_alarms("raised")
                os.kill(first, signal.SIGSTOP)
                try:
                    second = await other_than(pair, first)
                    total = await make_errors(pair, total, asleep=first)
                finally:
                    os.kill(first, signal.SIGCONT)
            await listener.until_alarms("raised", "cleared")
            for serve in pair.servers:  # the one that was frozen answers, too
                states = {each["name"]: each["state"] for each in (await called(serve, "/alarms"))["items"]}
                assert states["talk"] == "clear"
            await listener.lines(6)
            assert (await counted(pair))[1] == total
            async with connect(*pair.servers[0].where) as talking:
                assert (await talking.ask({"t": "sub", "c": "session:1", "i": "1"}))["t"] == "ok"
                await listener.until_alarms("raised", "cleared", "raised")
                await kill(second)
            await other_than(pair, second)
            await listener.until_alarms("raised", "cleared", "raised", "cleared")
            await listener.lines(6)
            assert (await counted(pair))[1] == total
            assert listener.alarms() == ["raised", "cleared"] * 2
            are_one_at_a_time(listener)
