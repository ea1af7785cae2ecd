"""The task board (S1): its whole story, told by clients that are not ours."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from fanline.nats.publish import open_nats_publisher
from fanline.protocol.envelope import Envelope
from tests.engine.access.clients import SECRET, token
from tests.support.foreign.client import KINDS, Foreign, Retry, foreign
from tests.support.foreign.examples import example, play
from tests.support.servers.serve import Serve, kill, running_serve
from tests.support.tasks.on_worker import worker_at

SECONDS = 110
RETRY = Retry((5.0,) * 10).faster(50)
ROOM = {"room_id": "project_123", "room_name": "My Project"}
JOIN = {"type": "join_room", **ROOM}
ITEM = {"task_id": "t1", "title": "Paint", "status": "todo", "assignee_id": "carl", "project_id": "project_123"}
MOVE = {"task_id": "t1", "old_status": "todo", "new_status": "in_progress", "changed_by": "bert"}


def am(name: str) -> dict[str, str]:
    return {"type": "connect", "user_id": name.lower(), "username": name}


@asynccontextmanager
async def running_board(directory: Path) -> AsyncIterator[Serve]:
    (directory / "fanline.toml").write_text("[namespaces.project]\ndurable = true\npresence = true\n")
    async with running_serve(2, ("--config", str(directory / "fanline.toml"))) as serve:
        yield serve


async def until(client: Foreign, kind: str, **fields: Any) -> dict[str, Any]:
    """The next message of this type with these fields; others before it are skipped, errors are not."""
    while True:
        message = await client.message()
        assert kind == "error" or message["type"] != "error", message
        if message["type"] == kind and fields.items() <= message.items():
            return message


async def until_all(client: Foreign, **expected: dict[str, Any]) -> None:
    """One message of each of these types, with these fields, in any order."""
    while expected:
        message = await client.message()
        fields = expected.get(message["type"])
        if fields is not None and fields.items() <= message.items():
            del expected[message["type"]]


async def up_to_now(client: Foreign) -> list[dict[str, Any]]:
    """All that has come but for pings."""
    await client.send({"type": "ping", "timestamp": "now"})
    messages = []
    while (message := await client.message())["type"] != "pong":
        messages.append(message)
    return messages


async def open_on(serve: Serve, worker: int, client: Foreign, *says: dict[str, Any]) -> None:
    """Connect to this worker; the kernel picks one, so it may take several tries."""
    url = f"ws://localhost:{serve.port}"  # without a path, as these clients do: S1-05
    while True:
        await client.open(url, retry=RETRY)
        await client.saw("open")
        if worker_at(serve, client.process.pid) == worker:
            return await client.says(*says)
        await client.close()
        while (await client.seen())["saw"] != "close":
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_members_of_a_project_share_its_board_over_two_workers(kind: str, tmp_path: Path) -> None:
    # S1-08, S1-09, S1-10, S1-25, S1-26, S1-27, S1-29, S1-30, S1-31, S1-33, S1-34, S1-35,
    # S1-37, S1-38, S1-40, S1-41, S1-42, S1-43, S1-44
    with trio.fail_after(SECONDS):
        async with running_board(tmp_path) as serve, foreign(kind) as anna, foreign(kind) as bert:
            first, second = serve.worker_pids()
            await open_on(serve, first, anna, am("Anna"), JOIN)
            await until(anna, "connection_established", user_id="anna")
            await until(anna, "session_joined")
            await open_on(serve, second, bert, am("Bert"), JOIN)
            who = {"user_id": "bert", "username": "Bert"}
            come = {"room_id": "project_123", "user_id": "bert", "user": who}
            await until_all(anna, session_joined=come, user_online={"user_id": "bert", "data": who})
            await anna.send({"type": "get_online_users", "channel": "project_123"})
            users = (await until(anna, "online_users"))["users"]
            assert [user["username"] for user in users] == ["Anna", "Bert"]
            await bert.send({"type": "user_status", "status": "away"})
            assert (await until(anna, "user_status_update"))["status"] == "away"

            await bert.send({"type": "task_created", "data": ITEM})
            await bert.send({"type": "task_status_changed", "data": MOVE})
            created, moved = [await until(anna, f"task_{what}") for what in ("created", "status_changed")]
            assert (created["data"], created["user_id"], created["project_id"]) == (ITEM, "bert", "project_123")
            assert (moved["data"], moved["task_id"], moved["project_id"]) == (MOVE, "t1", "project_123")
            assert created["timestamp"].endswith("Z")
            assert created["message_id"] != moved["message_id"]

            await anna.send({"type": "collaboration_start", "document_id": "d1"})
            await until(anna, "collaboration_start")
            await bert.send({"type": "collaboration_start", "document_id": "d1"})
            assert len((await until(anna, "collaboration_start"))["data"]["collaborators"]) == 2
            edit = {"type": "document_edit", "document_id": "d1", "operation": "insert", "position": 0, "content": "x"}
            await bert.send(edit)
            assert (await until(anna, "document_edit"))["data"]["content"] == "x"
            await bert.send({"type": "collaboration_end", "document_id": "d1"})
            assert len((await until(anna, "collaboration_end"))["data"]["collaborators"]) == 1

            await bert.send({"type": "leave_room", **ROOM})
            await until_all(anna, session_left=come, user_offline={"user_id": "bert", "data": who})
            await bert.close()
            while (seen := await bert.seen())["saw"] != "close":
                pass
            assert seen["code"] == 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_comes_back_after_a_killed_and_a_restarted_worker_and_hears_each_event_once(
    kind: str, tmp_path: Path
) -> None:
    with trio.fail_after(SECONDS):
        async with running_board(tmp_path) as serve, foreign(kind) as anna, foreign(kind) as bert:
            first, second = serve.worker_pids()
            await open_on(serve, first, anna, am("Anna"), JOIN)
            await until(anna, "session_joined")
            await open_on(serve, second, bert, am("Bert"), JOIN)
            await bert.send({"type": "task_created", "data": ITEM})
            await until(anna, "task_created")
            for code in (1006, 1012):
                await leave(serve, anna, code)
                await until(anna, "session_joined", user_id="anna")  # `connect` and `join_room` are said again
                await bert.send({"type": "task_status_changed", "data": MOVE})
                await until(anna, "task_status_changed")
                assert [message["type"] for message in await up_to_now(anna) if "task" in message["type"]] == []


async def leave(serve: Serve, client: Foreign, code: int) -> None:
    """End the client's worker, which closes its connection with this code; it is open again afterwards."""
    worker = worker_at(serve, client.process.pid)
    assert worker is not None
    if code == 1006:
        await kill(worker)
    else:
        os.kill(worker, signal.SIGTERM)
    while (seen := await client.seen())["saw"] != "close":
        pass
    assert seen["code"] == code
    await client.saw("retry", "open")


@pytest.mark.parametrize("kind", KINDS)
async def test_who_was_away_gets_what_came_meanwhile_once_and_what_was_under_way_again(
    kind: str, tmp_path: Path
) -> None:  # S1-45, S1-46
    with trio.fail_after(SECONDS):
        async with running_board(tmp_path) as serve, foreign(kind) as bert:
            first, second = serve.worker_pids()
            await open_on(serve, first, bert, am("Bert"))
            await bert.send({"type": "task_created", "data": ITEM})
            await bert.send({"type": "task_status_changed", "data": MOVE})
            await bert.send({"type": "get_tasks", "project_id": "project_123"})
            assert len((await until(bert, "tasks"))["tasks"]) == 1  # so both are stored
            async with foreign(kind) as carl:
                await open_on(serve, second, carl, am("Carl"))
                assert (await until(carl, "task_created"))["data"] == ITEM
                assert (await until(carl, "task_status_changed"))["data"] == MOVE
                await acknowledged(serve, carl, first, kind)
                carl.process.send_signal(signal.SIGSTOP)  # it is there, and takes nothing any more
                await bert.send({"type": "task_updated", "data": {"task_id": "t1", "title": "Paint it blue"}})
                await bert.send({"type": "get_tasks", "project_id": "project_123"})
                await until(bert, "tasks")
            async with foreign(kind) as carl:
                await open_on(serve, first, carl, am("Carl"))
                assert (await until(carl, "task_updated"))["data"]["title"] == "Paint it blue"


async def acknowledged(serve: Serve, carl: Foreign, worker: int, kind: str) -> None:
    """Carl's library has answered the ping behind his messages, so another connection of his gets nothing of them."""
    while True:
        async with foreign(kind) as other:
            await open_on(serve, worker, other, am("Carl"))
            await until(other, "connection_established", user_id="carl")
            if not [message for message in await up_to_now(other) if "task" in message["type"]]:
                return


@pytest.mark.parametrize("kind", KINDS)
async def test_urgent_notices_reach_everybody_and_past_events_are_read_page_by_page(kind: str, tmp_path: Path) -> None:
    # S1-23, S1-24, S1-36, S1-48, S1-50, S1-53
    notice = {"title": "Maintenance", "level": "info"}
    with trio.fail_after(SECONDS):
        async with running_board(tmp_path) as serve, foreign(kind) as anna:
            await open_on(serve, serve.worker_pids()[0], anna, am("Anna"))
            await until(anna, "connection_established", user_id="anna")
            async with open_nats_publisher(serve.producer) as backend:
                backend.publish(Envelope(channel="system:all", event="system_notification", data=notice, priority=9))
            told = await until(anna, "system_notification")  # though she has not subscribed to it
            assert (told["data"], told["priority"]) == (notice, 9)

            for number in range(5):
                await anna.send({"type": "task_updated", "task_id": f"t{number}", "project_id": "project_123"})
            await anna.send({**JOIN})
            await until(anna, "session_joined")
            pages: list[dict[str, Any]] = []
            ask: dict[str, Any] = {"type": "history", "channel": "project_123", "limit": 2}
            while not pages or pages[-1]["more"]:
                await anna.send(ask)
                pages.append(await until(anna, "history"))
                ask["before"] = pages[-1].get("before")
            tasks = [[message["task_id"] for message in page["messages"]] for page in pages]
            assert tasks == [["t3", "t4"], ["t1", "t2"], ["t0"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_hears_only_projects_to_which_the_token_gives_a_right(kind: str) -> None:
    # S1-14, S1-15, S1-18
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    rights = {"project:mine": ["sub", "pub"]}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve, foreign(kind) as anna, foreign(kind) as boss:
            url = f"ws://localhost:{serve.port}/"
            await anna.open(url, retry=Retry((5.0,) * 2).faster(50))
            refused = await anna.saw("refused")
            assert refused["status"] == 401
            assert refused["body"] == "" or json.loads(refused["body"])["message"] == "Authentication required"
            await anna.saw("retry", "refused", "retry", "refused", "gave_up")
            await anna.open(f"{url}?token={token('anna', secret='another secret that is long enough')}")
            assert (await anna.saw("refused"))["status"] == 401
            await anna.open(f"{url}?token={token('anna', channels=rights)}&project_id=yours")
            assert (await anna.saw("refused"))["status"] == 403

            await anna.open(f"{url}?token={token('anna', channels=rights)}&project_id=mine")
            await boss.open(f"{url}?token={token('boss', channels={'project:*': ['sub', 'pub'], 'user:*': ['pub']})}")
            for client in (anna, boss):
                await client.saw("open")
                await client.heard("connection_established")
            await anna.send({"type": "join_room", "room_id": "yours"})
            assert (await until(anna, "error"))["message"] == "Channel access denied"
            for project in ("yours", "mine"):
                await boss.send({"type": "task_created", "task_id": project, "project_id": project})
            assert (await until(anna, "task_created"))["task_id"] == "mine"
            await anna.send({"type": "task_created", "task_id": "t9", "project_id": "yours"})
            assert (await until(anna, "error"))["message"] == "Task access denied"


async def test_the_example_reaches_who_is_there_and_who_comes_later(tmp_path: Path) -> None:
    news = ["new: Write the minutes (todo)", "t1 todo -> in_progress"]
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve:
            site = f"ws://localhost:{serve.port}"
            async with example(serve, tmp_path, "task_board/client.py", "bert", site) as bert:
                assert await bert.receive() == "Bert is here"
                assert await play(serve, tmp_path, "task_board/producer.py", site) == ["1 item on the board"]
                assert await bert.rest() == news
            anna = await play(serve, tmp_path, "task_board/client.py", "anna", site)
            assert [line for line in anna if "is here" not in line] == news
