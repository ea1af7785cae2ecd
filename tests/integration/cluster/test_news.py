"""What happens to the servers of a cluster is told, truthfully and once, whichever processes are hurt with it."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.integration.cluster.servers import name_of, process_of, two_servers
from tests.integration.monitor.test_monitor import MONITOR, heard
from tests.support.raw_client import RawClient, connect_raw
from tests.support.servers.serve import Serve, kill
from tests.support.tasks.on_worker import worker_of

SECONDS = 170
DISRUPTION = "system_service_disruption"


@asynccontextmanager
async def watched(serve: Serve, worker: int) -> AsyncIterator[RawClient]:
    """A client on the monitor, by this worker, once all processes know all workers."""
    while True:
        async with connect_raw(*serve.where) as client:
            client.answers_pings = True
            await client.upgrade(None, MONITOR)
            if worker_of(serve, client) != worker:
                continue
            assert (await client.json())["type"] == "connection_established"
            for _ in range(8):
                await heard(client, "stats_update")
            yield client
            return


async def disruption(client: RawClient, *but: str) -> dict[str, Any]:
    """What is said next, other than these."""
    while (data := (await heard(client, DISRUPTION))["data"])["event"] in but:
        pass
    found: dict[str, Any] = data
    return found


async def repeated(client: RawClient, events: tuple[str, ...], seconds: float) -> list[dict[str, Any]]:
    """Which of these are said in the next seconds."""
    found = list[dict[str, Any]]()
    with trio.move_on_after(seconds):
        while True:
            data = await disruption(client)
            if data["event"] in events:
                found.append(data)
    return found


async def test_a_worker_killed_with_every_control_process_is_told_by_whoever_leads_next() -> None:  # S2-108
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            one, other = pair.servers
            victim, spared = one.worker_pids()
            async with watched(other, other.worker_pids()[0]) as client:
                for pid in (process_of(one, "control"), process_of(other, "control"), victim):
                    assert pid is not None
                    await kill(pid)
                told = await disruption(client, "worker_died")
                assert (told["event"], told["server"], told["expected"]) == ("worker_restarted", name_of(one), False)
                assert told["pid"] not in (victim, spared)
                assert "died (signal 9)" in told["message"]
                assert await repeated(client, ("worker_restarted",), 8) == []


async def test_a_frozen_worker_is_said_to_be_gone_and_then_to_answer_again() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            one, other = pair.servers
            victim = one.worker_pids()[0]
            async with watched(other, other.worker_pids()[0]) as client:
                os.kill(victim, signal.SIGSTOP)
                told = await disruption(client)
                os.kill(victim, signal.SIGCONT)
                assert (told["event"], told["pid"], told["server"]) == ("worker_died", victim, name_of(one))
                again = await disruption(client)
                assert (again["event"], again["pid"]) == ("worker_returned", victim)
                assert victim in one.worker_pids()


async def test_a_server_that_is_killed_whole_is_told_by_the_other() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            one, other = pair.servers
            gone = name_of(one)
            async with watched(other, other.worker_pids()[0]) as client:
                await kill(one.pid)
                told = [await disruption(client), await disruption(client)]
                assert [each["event"] for each in told] == ["worker_died"] * 2
                assert {each["server"] for each in told} == {gone}
                assert {each["worker"] for each in told} == {"worker-0", "worker-1"}
