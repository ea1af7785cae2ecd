"""The monitor of a real server: who may manage by it, and what it tells when processes end."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.engine.access.clients import SECRET, token
from tests.integration.control.test_control_process import ask, control_pid, wait_answer
from tests.support.raw_client import RawClient, connect_raw
from tests.support.servers.serve import Serve, kill, running_serve
from tests.support.tasks.on_worker import worker_of

MONITOR = "/ws/admin/monitor"
SECONDS = 120
FAST = {"FANLINE_CONTROL": "true", "FANLINE_MONITOR_SAMPLE": "0.5", "FANLINE_MONITOR_INTERVAL": "0.5"}
TOKENS = {"FANLINE_AUTH": "token", "FANLINE_TOKENS_SECRET": SECRET}
ADMIN = token(sub="root", ends_in=3600, roles=["admin"])


@asynccontextmanager
async def watched(*args: str) -> AsyncIterator[tuple[Serve, RawClient]]:
    """A server of two workers, and an admin on its monitor who gets statistics of both."""
    async with running_serve(2, args, env=FAST | TOKENS) as serve, watching(serve, ADMIN) as client:
        while (await heard(client, "stats_update"))["data"]["workers"]["answered"] < 2:
            pass
        yield serve, client


@asynccontextmanager
async def watching(serve: Serve, shown: str) -> AsyncIterator[RawClient]:
    async with connect_raw(*serve.where) as client:
        client.answers_pings = True
        await client.upgrade(None, f"{MONITOR}?token={shown}")
        assert (await client.json())["type"] == "connection_established"
        yield client


async def heard(client: RawClient, *kinds: str) -> dict[str, Any]:
    """The next message of one of these types."""
    while (message := await client.json())["type"] not in kinds:
        pass
    return message


async def until_known(client: RawClient) -> None:
    """Wait for four seconds of the control process: it misses no worker that it has not seen sign in twice."""
    for _ in range(8):
        await heard(client, "stats_update")


async def managed(client: RawClient, call: str, **fields: Any) -> dict[str, Any]:
    """The answer to a call; an error is one as well."""
    await client.say({"type": call, **fields})
    return await heard(client, f"{call}_result", "error")


async def new_key(serve: Serve, *rights: str) -> str:
    """A key of the management API with these rights."""
    command = [sys.executable, "-P", "-m", "fanline", "apikey", "create", "test"]
    for right in rights:
        command += ["--right", right]
    made = await trio.run_process(command, env=serve.environ, capture_stdout=True)
    return next(word for word in made.stdout.decode().split() if word.startswith("fl_"))


async def test_management_calls_work_on_the_socket_with_the_rights_of_http() -> None:  # S4-03, S4-78, S4-79
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin):
            stats = await managed(admin, "stats")
            assert stats["total_connections"] >= 1
            pids = serve.worker_pids()
            async with (
                connect_raw(*serve.where) as client,
                coming(serve, pids[0], "bert") as other,
            ):
                await client.upgrade(None, f"/ws?token={token(sub='anna', ends_in=600)}")
                await client.json()
                sent = await managed(admin, "broadcast", message={"type": "news", "data": {"a": 1}})
                assert (sent["connections"], sent["workers"]["answered"]) == (3, 2)
                assert (await heard(client, "news"))["data"] == {"a": 1}
                assert (await heard(other, "news"))["data"] == {"a": 1}
                done = await managed(admin, "disconnect_user", user_id="bert")
                assert done["disconnected"] == 1
                while (gone := (await heard(admin, "disconnect"))["data"])["user_id"] != "bert" or gone["code"] == 1006:
                    pass  # the canary, or a connection that was on the other worker
                assert gone["code"] == 1000
            wrong = await managed(admin, "send-to-connection", connection_id="ab-1", message={})
            assert wrong["message"] == "send-to-connection: no connection with this id is open"
            assert (await managed(admin, "nonsense"))["message"] == "Unknown message type: nonsense"
            assert "body.user_id" in (await managed(admin, "disconnect_user"))["message"]
            answer = await ask(serve, "/stats", headers={"Authorization": f"Bearer {ADMIN}"})
            assert answer.status_code == 200


@asynccontextmanager
async def coming(serve: Serve, worker: int, user: str) -> AsyncIterator[RawClient]:
    """A plain client of a user, on this worker."""
    while True:
        async with connect_raw(*serve.where) as client:
            await client.upgrade(None, f"/ws?token={token(sub=user, ends_in=600)}")
            await client.json()
            if worker_of(serve, client) == worker:
                yield client
                return


async def test_a_key_may_do_on_the_socket_what_it_may_do_by_http() -> None:  # S4-78
    with trio.fail_after(SECONDS):
        async with watched() as (serve, _):
            reader = await new_key(serve, "read")
            async with watching(serve, reader) as client:
                assert (await managed(client, "info"))["auth"] == "token"
                refused = await managed(client, "broadcast", message={"type": "x"})
                assert "needs a key with the right `publish`" in refused["message"]
                assert "needs a key with the right `admin`" in (await managed(client, "create_key"))["message"]


async def test_calls_are_refused_while_the_control_process_is_dead_and_work_again_when_it_is_back() -> None:
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin):
            await kill(control_pid(serve))
            assert "info: the control process" in (await managed(admin, "info"))["message"]
            while (await managed(admin, "info"))["type"] == "error":
                await trio.sleep(0.1)
            while not any(step["stats"] for step in (await managed(admin, "stats_history", limit=500))["items"]):
                await heard(admin, "stats_update")  # until there is a record of a minute


async def test_a_worker_that_dies_is_a_disruption_that_admins_hear_of() -> None:  # S2-108
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin):
            await until_known(admin)
            victim = next(pid for pid in serve.worker_pids() if pid != worker_of(serve, admin))
            await kill(victim)
            told = await heard(admin, "system_service_disruption")
            assert told["data"]["event"] in ("worker_died", "worker_restarted")
            assert (told["data"]["expected"], told["channel"]) == (False, "system")
            while (await heard(admin, "stats_update"))["data"]["workers"] != {"answered": 2, "missing": []}:
                pass


async def test_an_outage_of_nats_is_told_and_costs_the_watchers_nothing_but_the_time() -> None:  # S2-108
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin):
            await kill(serve.nats_pid())
            told = await heard(admin, "system_service_disruption")
            assert told["data"]["event"] == "nats_lost"
            await heard(admin, "stats_update")
            while (await managed(admin, "stats"))["type"] == "error":
                await trio.sleep(0.1)


async def test_a_worker_that_is_told_to_end_is_said_to_drain() -> None:  # S2-108
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin):
            await until_known(admin)
            leaving = next(pid for pid in serve.worker_pids() if pid != worker_of(serve, admin))
            os.kill(leaving, signal.SIGTERM)
            told = await heard(admin, "system_service_disruption")
            assert told["data"]["event"] == "draining"
            again = await heard(admin, "system_service_disruption")
            assert (again["data"]["event"], again["data"]["expected"]) == ("worker_restarted", True)


async def test_errors_raise_the_alarm_of_the_settings(tmp_path: Path) -> None:  # S4-81
    config = tmp_path / "fanline.toml"
    config.write_text('[alarms.many]\nwhen = "errors_per_minute > 5"\n')
    with trio.fail_after(SECONDS):
        async with watched("--config", str(config)) as (serve, admin):
            for _ in range(8):
                await managed(admin, "nonsense")
            told = await heard(admin, "system_performance_alert")
            assert (told["data"]["alarm"], told["data"]["state"]) == ("many", "raised")
            shown = await managed(admin, "alarms")
            assert (shown["items"][0]["name"], shown["items"][0]["state"]) == ("many", "raised")
            assert (await wait_answer(serve, "/alarms", headers={"Authorization": f"Bearer {ADMIN}"}))["total"] > 1


async def test_the_state_of_a_session_a_device_or_an_account_reaches_its_user_now_or_later() -> None:  # S4-84, S4-93
    with trio.fail_after(SECONDS):
        async with watched() as (serve, admin), coming(serve, serve.worker_pids()[0], "anna") as anna:
            for kind, about in [("session_status_changed", "session_id"), ("device_status_changed", "device_id")]:
                message = {"type": kind, "data": {"status": "paused"}, about: "7"}
                sent = await managed(admin, "send_to_user", user_id="anna", message=message)
                assert sent["connections"] == 1
                told = await heard(anna, kind)
                assert (told["data"], told[about], told["message_id"]) == (
                    {"status": "paused"},
                    "7",
                    sent["message_id"],
                )
            message = {"type": "account_status_changed", "data": {"status": "limited"}}
            sent = await managed(admin, "send_to_user", user_id="bert", message=message)
            assert sent["connections"] == 0
            async with coming(serve, serve.worker_pids()[1], "bert") as bert:
                assert (await heard(bert, "account_status_changed"))["data"] == {"status": "limited"}
