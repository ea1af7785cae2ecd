"""Backends of the old systems on `fanline.compat`, heard by plain clients of a real server."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect
from tests.support.servers.free_port import free_port
from tests.support.servers.serve import Serve, shared_serve
from tests.support.tasks.stored import SECONDS, in_thread, run_script

THE_SERVERS = ("ping", "connection_established", "task_status_change", "user_online", "user_offline", "status")
"""What clients are told besides."""
EVENTS = ("task_started", "project_updated", "hello")


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with shared_serve() as serve:
        yield serve


async def backend(serve: Serve, script: str) -> None:
    """Run a program that must end well."""
    script = "from fanline.compat import *\nimport asyncio\n" + textwrap.dedent(script)
    ended = await in_thread(lambda: run_script(script, **serve.environ))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@asynccontextmanager
async def client(serve: Serve, user: str, *channels: str) -> AsyncIterator[RawClient]:
    async with connect("127.0.0.1", serve.port, subprotocol=None) as client:
        await greeting(client, user)
        for channel in channels:
            await client.say({"type": "subscribe", "channel": channel})
            while (said := await client.json())["type"] != "subscription_result":
                pass
            assert said["subscribed"], said
        yield client


async def greeting(client: RawClient, user: str) -> dict[str, Any]:
    """Say who we are, and what the server answers."""
    await client.say({"type": "connect", "user_id": user})
    with trio.fail_after(SECONDS):
        while (said := await client.json())["type"] != "connection_established":
            pass
    return said


async def until(client: RawClient, last: str) -> list[dict[str, Any]]:
    """What comes before the message of this type, but for what the server says itself."""
    heard = list[dict[str, Any]]()
    with trio.fail_after(SECONDS):
        while (said := await client.json())["type"] != last:
            if said["type"] not in THE_SERVERS:
                heard.append(said)
    return heard


async def test_events_reach_whoever_they_concern_once(serve: Serve) -> None:  # S1-06, S2-59, S2-60, S2-61, S2-62
    async with client(serve, "anna", "task:42", "project:7") as anna, client(serve, "carl") as carl:
        await backend(
            serve,
            """
            async def main():
                assert await emit_task_event("task_started", "42", {"title": "T"}, user_id="anna", project_id="7")
                await asyncio.create_task(emit_project_event("project_updated", "7", {"name": "x"}, user_id="bert"))
                await emit_user_event("hello", "anna", {"a": 1})
                await asyncio.gather(emit_system_event("system_maintenance_end", {}))
                await emit_user_event("last", "anna")
                assert await emit_system_event("system_maintenance_start", {"at": "noon"}, priority=8)

            asyncio.run(main())
            """,
        )
        heard = [said for said in await until(anna, "last") if "maintenance" not in said["type"]]
        while len(heard) < len(EVENTS):  # of one channel messages come in order, of several they need not
            said = await anna.json()
            heard += [said] * (said["type"] in EVENTS)
        started, updated, hello = sorted(heard, key=lambda said: EVENTS.index(said["type"]))
        assert (started["type"], started["task_id"], started["project_id"]) == ("task_started", "42", "7")
        assert (started["channel"], started["user_id"]) == ("task:42", "anna")
        assert (updated["type"], updated["channel"], updated["user_id"]) == ("project_updated", "project:7", "bert")
        assert (hello["type"], hello["data"]) == ("hello", {"a": 1})
        assert [said["type"] for said in await until(carl, "system_maintenance_start")] == []


async def test_messages_are_sent_as_they_are(serve: Serve) -> None:  # S2-23, S2-24, S2-25, S2-26, S3-06, S4-10
    async with client(serve, "dora", "project:8", "doc:3") as dora:
        await backend(
            serve,
            """
            assert send_to_user("dora", {"type": "note", "data": {"b": 1}, "task_id": "9"}).wait(20)
            assert send_to_channel("doc:3", {"type": "edited", "color": "red"}).wait(20)
            assert send_to_project("8", {"type": "moved", "data": {}}).wait(20)
            assert broadcast_to_project("8", {"type": "moved_again"}).wait(20)
            assert send_to_user("dora", {"type": "last"}).wait(20)
            """,
        )
        note, edited, moved, again = await until(dora, "last")
        assert (note["type"], note["data"], note["task_id"]) == ("note", {"b": 1}, "9")
        assert (edited["type"], edited["data"], edited["color"]) == ("edited", {}, "red")
        assert (moved["type"], moved["project_id"], again["type"]) == ("moved", "8", "moved_again")


async def test_a_broadcast_reaches_every_connection_subscribed_or_not(serve: Serve) -> None:  # S3-05, S4-12
    async with client(serve, "eve") as eve:
        await backend(serve, """assert broadcast({"type": "to_all", "data": {"c": 1}}).wait(20)""")
        assert await until(eve, "to_all") == []


async def test_a_connection_may_be_left_out(serve: Serve) -> None:  # S2-23
    async with connect("127.0.0.1", serve.port, subprotocol=None) as one:
        established = await greeting(one, "fred")
        async with client(serve, "fred") as other:
            await backend(
                serve,
                f"""
                here = "{established["connection_id"]}"
                send_to_user("fred", {{"type": "to_others"}}, exclude_connection=here).wait(20)
                send_to_user("fred", {{"type": "last"}}).wait(20)
                """,
            )
            assert [said["type"] for said in await until(other, "last")] == ["to_others"]
            assert await until(one, "last") == []


async def test_a_board_is_told_of_its_items_and_a_user_is_notified(serve: Serve) -> None:  # S1-07, S1-08, S1-09, S1-11
    async with client(serve, "gina", "project:9") as gina:
        await backend(
            serve,
            """
            async def main():
                item = {"task_id": "t1", "title": "T", "status": "todo", "assignee_id": "gina", "project_id": "9"}
                await broadcast_task_update(item, "task_created")
                change = {"task_id": "t1", "old_status": "todo", "new_status": "in_progress", "changed_by": "hans"}
                await broadcast_task_update(change, "task_status_changed")
                await send_notification_to_user("gina", "Title", "Text", "warning")
                await send_to_user("gina", {"type": "last"})

            asyncio.run(main())
            """,
        )
        created, changed, notification = await until(gina, "last")
        await backend(  # another process, which names nobody
            serve,
            """
            assert broadcast_task_update({"task_id": "t1", "title": "Told anew"}).wait(20)
            assert send_to_user("gina", {"type": "last"}).wait(20)
            """,
        )
        (updated,) = await until(gina, "last")
        assert (updated["type"], updated["project_id"]) == ("task_updated", "9")
        await gina.say({"type": "get_tasks", "project_id": "9"})
        while (listed := await gina.json())["type"] != "tasks":
            pass
        assert [(item["title"], item["status"]) for item in listed["tasks"]] == [("Told anew", "in_progress")]
        assert (created["type"], created["data"]["status"], created["task_id"]) == ("task_created", "todo", "t1")
        assert (changed["type"], changed["data"]["new_status"]) == ("task_status_changed", "in_progress")
        assert changed["project_id"] == "9"
        assert notification["type"] == "notification"
        assert {"title": "Title", "message": "Text", "type": "warning"}.items() <= notification["data"].items()
        assert notification["notification"] == notification["data"]


# --- a server from inside a program --------------------------------------------------------------------------------

APP = """
import asyncio, sys
from fanline.compat import initialize_websocket_system, start_websocket_server

async def main():
    server = await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))
    print(server.url, server.pid, server.attached, flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@asynccontextmanager
async def app(port: int, environ: dict[str, str]) -> AsyncIterator[tuple[trio.Process, list[str]]]:
    """The program, and the line that it prints once its server is ready."""
    command = [sys.executable, "-P", "-c", APP, str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, check=False)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        line = b""
        with trio.fail_after(60):
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some(100)
                assert piece, "the program has ended"
                line += piece
        yield process, line.decode().split()
        nursery.cancel_scope.cancel()


async def test_a_program_starts_a_server_which_ends_with_it_and_a_second_one_attaches(  # S1-03, S1-04
    tmp_path: Any,
) -> None:
    port = free_port()
    environ = {"FANLINE_STATE_DIR": str(tmp_path / "state"), "FANLINE_DATA_DIR": str(tmp_path / "data")}
    environ["FANLINE_WORKERS"] = "1"
    async with app(port, environ) as (first, (url, pid, attached)):
        assert (url, attached) == (f"ws://127.0.0.1:{port}/ws", "False")
        async with connect("127.0.0.1", port, subprotocol=None) as client:
            await greeting(client, "anna")
        async with app(port, environ) as (_, again):
            assert again == [url, pid, "True"]
        server = os.pidfd_open(int(pid))
        first.send_signal(signal.SIGKILL)
        try:
            with trio.fail_after(60):
                await trio.lowlevel.wait_readable(server)
        finally:
            os.close(server)
