"""Every management call, and `fanline admin`, answers or fails plainly in time while parts of a cluster are away."""

import io
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

import httpx
import trio

from fanline.cli.dispatch import dispatch
from fanline.cli.manage.admin import add_admin
from tests.integration.cluster.servers import API, PLAIN, called, name_of, process_of, two_servers
from tests.integration.cluster.test_management import is_sent_to_all
from tests.integration.monitor.test_monitor import MONITOR
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.support.servers.serve import Serve, kill

SECONDS = 300
DEADLINE = 20.0
"""For a call: twice `forward_timeout`, on a machine that does much else."""
CALLS: tuple[tuple[str, Any], ...] = (
    ("/stats", None),
    ("/connections", None),
    ("/channels/news:all", None),
    ("/alarms", None),
    ("/ping/anna", {}),
    ("/broadcast", {"message": {"type": "notice"}}),
    ("/publish", {"messages": [{"channel": "task:1", "data": {}}]}),
    ("/users/disconnect", {"user_id": "anna"}),
)


class Callers:
    """Call one server again and again, each one call of its own."""

    def __init__(self, serve: Serve) -> None:
        self._url = f"http://127.0.0.1:{serve.port}{API}"
        self.answers = Counter[int]()
        self.missing = Counter[str]()
        self._ended = False

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for path, body in CALLS:
                nursery.start_soon(self._call, path, body)
            yield
            self._ended = True

    async def until(self, count: int) -> None:
        """More calls have been answered."""
        wanted = self.answers.total() + count
        while self.answers.total() < wanted:
            await trio.sleep(0.05)

    async def _call(self, path: str, body: Any) -> None:
        while not self._ended:
            with trio.fail_after(DEADLINE):
                async with httpx.AsyncClient(timeout=DEADLINE, verify=PLAIN) as client:
                    answer = await client.request("GET" if body is None else "POST", self._url + path, json=body)
            said = answer.json()
            self.answers[answer.status_code] += 1
            if answer.status_code != 200:
                assert (answer.status_code, said["error"]) == (503, "unavailable"), (path, said)
                assert said["message"], path
                await trio.sleep(0.1)
            self.missing.update(((said.get("workers") or {}).get("missing")) or ())


async def fanline_admin(serve: Serve, *args: str) -> tuple[int, list[str]]:
    """Exit code, and the lines of both outputs. A process of its own might start later than a worker is given up."""

    def run() -> tuple[int, list[str]]:
        said = io.StringIO()
        with patch.dict(os.environ, serve.environ), redirect_stdout(said), redirect_stderr(said):
            code = dispatch("admin", add_admin, list(args))
        return code, said.getvalue().splitlines()

    return await trio.to_thread.run_sync(run)


async def failed(serve: Serve, *args: str) -> str:
    """The one line with which a command fails."""
    code, lines = await fanline_admin(serve, *args)
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("fanline: error: "), lines
    return lines[0].removeprefix("fanline: error: ")


async def test_calls_answer_or_are_refused_in_time_while_control_processes_and_a_worker_are_killed() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            asked, other = pair.servers
            callers = Callers(asked)
            async with callers.calling():
                await callers.until(16)
                for serve in (asked, other):
                    control = process_of(serve, "control")
                    assert control is not None
                    await kill(control)
                    await callers.until(16)
                victim = other.worker_pids()[1]
                await kill(victim)
                await callers.until(16)
                while not any(f"of {name_of(other)} (pid {victim})" in name for name in callers.missing):
                    if victim not in other.worker_pids() and not callers.missing:
                        break  # the cluster knew before it was asked
                    await callers.until(1)
                await called(asked, "/stats")
                while (await called(asked, "/stats"))["workers"] != {"answered": 4, "missing": []}:
                    await trio.sleep(0.05)
            assert callers.answers[200] > 0


async def test_an_outage_of_nats_is_said_by_every_call_and_command_told_once_and_forgotten() -> None:
    with trio.fail_after(SECONDS):
        patient = {"FANLINE_ENGINE_IDLE_TIMEOUT": "300"}  # of clients that do not read all the time
        async with two_servers(env=patient) as pair, pair.on_each_worker() as clients, monitor(pair.servers[0]) as told:
            pair.nats.kill()
            for serve in pair.servers:
                async with trio.open_nursery() as nursery:
                    for path, body in CALLS:
                        nursery.start_soon(is_refused, serve, path, body)
                assert (await called(serve, "/info"))["server"] == name_of(serve)
                assert "NATS" in await failed(serve, "stats")
            await pair.nats.start()
            for serve in pair.servers:
                while (await called(serve, "/stats"))["workers"] != {"answered": 4, "missing": []}:
                    await trio.sleep(0.05)
                await is_sent_to_all(serve, clients, others=1)
            events = list[str]()
            while (message := await told.json())["type"] != "stats_update" or "nats_lost" not in events:
                if message["type"] == "system_service_disruption":
                    events.append(message["data"]["event"])
            assert events == ["nats_lost"]


async def is_refused(serve: Serve, path: str, body: Any) -> None:
    with trio.fail_after(DEADLINE):
        async with httpx.AsyncClient(timeout=DEADLINE, verify=PLAIN) as client:
            url = f"http://127.0.0.1:{serve.port}{API}{path}"
            answer = await client.request("GET" if body is None else "POST", url, json=body)
    said = answer.json()
    if path == "/publish":  # each message succeeds or fails by itself
        assert (said["published"], said["failed"], bool(said["results"][0]["message"])) == (0, 1, True), said
    else:
        assert (answer.status_code, said.get("error")) == (503, "unavailable"), (path, said)


@asynccontextmanager
async def monitor(serve: Serve) -> AsyncIterator[RawClient]:
    async with connect_raw(*serve.where) as client:
        client.answers_pings = True
        await client.upgrade(None, MONITOR)
        while (await client.json())["type"] != "stats_update":
            pass
        yield client


async def test_the_command_line_says_in_one_line_which_worker_or_control_process_does_not_answer() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers(env={"FANLINE_HANG_TIMEOUT": "150"}) as pair:
            one, other = pair.servers
            frozen, control = other.worker_pids()[0], process_of(other, "control")
            assert control is not None
            who = f"of {name_of(other)} (pid {frozen})"
            async with connect(*one.where) as client:
                os.kill(frozen, signal.SIGSTOP)
                try:
                    code, lines = await fanline_admin(one, "connections")
                    assert code == 0
                    assert client.connection in lines[1]
                    assert lines[-1].startswith("NOT ANSWERED: "), lines
                    assert who in lines[-1]
                    assert who in await failed(one, "connection", "0123456789abcdef-1")
                finally:
                    os.kill(frozen, signal.SIGCONT)
            os.kill(control, signal.SIGSTOP)
            try:
                assert "does not answer" in await failed(other, "stats")
                assert (await fanline_admin(one, "stats"))[0] == 0
            finally:
                os.kill(control, signal.SIGCONT)
