"""The agent task board (S3), from the first connection to the last event: clients that neither subscribe nor say who
they are, and filter what they hear by `project_id`.
"""

import os
import signal
from typing import Any

import pytest
import trio

from tests.engine.access.clients import SECRET, token
from tests.integration.systems.scene import (
    caught_up,
    come,
    coming,
    kept_out,
    publish,
    revoke,
    until_closed,
    until_in,
    url_of,
)
from tests.support.foreign.client import KINDS, Retry, foreign
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import kill, running_serve

pytestmark = pytest.mark.parametrize("kind", KINDS)
SECONDS = 90
BACK_OFF = Retry((1.0, 2.0, 4.0, 8.0, 16.0))
"""Base times 2^(n-1), up to a maximum of tries: the system names no numbers."""
SOON = BACK_OFF.faster(20)
TYPES = (
    *("task_created", "task_updated", "task_status_changed", "task_deleted", "tasks_reset"),  # S3-10 to S3-14
    *("agent_spawned", "agent_status_update", "agent_messages"),  # S3-15, S3-16, S3-17
    *("coordination_update", "file_locks_update", "plan_generated", "log"),  # S3-18, S3-19, S3-20, S3-21
)


async def test_every_event_reaches_all_boards_once_with_its_project_and_a_board_of_one_project_no_other(
    kind: str,
) -> None:
    # S3-01, S3-08, S3-09, S3-24, S3-32
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, connect_nats(serve.producer_url) as backend:
            first, second = serve.worker_pids()
            async with (
                coming(kind, serve, "/ws/board", first) as one,
                coming(kind, serve, "/ws/board", second) as other,
                coming(kind, serve, "/ws/board?project_id=7", second) as seven,
                coming(kind, serve, "/ws/board?project_id=8", first) as eight,
            ):
                for number, event in enumerate(TYPES):
                    data: Any = {"n": number} if number % 2 else None
                    await publish(backend, "project:7", event, data)
                    for client in (one, other, seven):
                        heard = await client.heard(event)
                        assert (heard["project_id"], heard["data"]) == ("7", data or {})
                        assert heard["timestamp"].endswith("Z")
                await publish(backend, "project:8", "notification", {"title": "for eight"})
                for client in (one, other, eight):
                    heard = await client.heard("notification")
                    assert (heard["project_id"], heard["data"]["title"]) == ("8", "for eight")
                    assert heard["notification"] == heard["data"]
                await publish(backend, "system:all", "log", {"for": "everybody"}, pr=8)
                everybody = (one, other, seven, eight)
                for client in everybody:
                    assert (await client.heard("log"))["data"] == {"for": "everybody"}
                await caught_up(*everybody)
                for client in everybody:
                    await client.close()
                    assert await until_closed(client) == 1000


async def test_what_a_client_says_of_an_item_reaches_every_board_and_a_dead_client_hurts_nobody(kind: str) -> None:
    # S3-07, S3-11, S3-13
    item = {"task_id": "i1", "title": "Paint", "status": "todo", "project_id": 7}
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, connect_nats(serve.producer_url) as backend:
            first, second = serve.worker_pids()
            async with (
                coming(kind, serve, "/ws/board", first) as one,
                coming(kind, serve, "/ws/board", second) as other,
                coming(kind, serve, "/ws", first) as speaker,
                coming(kind, serve, "/ws/board", first) as dead,
            ):
                await speaker.send({"type": "task_created", "data": item})
                for client in (one, other, dead):
                    assert (await client.heard("task_created"))["data"] == item
                dead.kill()
                await speaker.send({"type": "task_status_changed", "data": {"task_id": "i1", "new_status": "done"}})
                for client in (one, other):
                    assert (await client.heard("task_status_changed"))["project_id"] == "7"
                for number in range(200):
                    await backend.publish(("fanline.pub.project.7", b'{"v":1,"e":"log","d":{"n":%d}}' % number))
                for client in (one, other):
                    assert [(await client.heard("log"))["data"]["n"] for _ in range(200)] == list(range(200))
                await caught_up(one, other, speaker)


async def test_a_producer_that_repeats_itself_is_heard_once(kind: str) -> None:  # S3-48
    header = {"Nats-Msg-Id": "/project:7/log-1"}
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, connect_nats(serve.producer_url) as backend:
            first, second = serve.worker_pids()
            async with (
                coming(kind, serve, "/ws/board", first) as one,
                coming(kind, serve, "/ws/board?project_id=7", second) as seven,
            ):
                for repeat in (False, True, True):
                    reply = await backend.ask("fanline.pub.project.7", b'{"v":1,"e":"log","i":"log-1"}', header)
                    assert reply.get("duplicate", False) is repeat
                for client in (one, seven):
                    assert (await client.heard("log"))["message_id"] == "log-1"
                await caught_up(one, seven)


async def test_a_client_backs_off_after_a_refusal_and_comes_back_when_there_is_room(kind: str) -> None:
    # S3-41, S3-45
    settings = {"FANLINE_ENGINE_MAX_CONNECTIONS": "1"}
    with trio.fail_after(SECONDS):
        async with running_serve(1, env=settings) as serve, foreign(kind) as late:
            async with coming(kind, serve, "/ws/board") as one:
                await late.open(url_of(serve, "/ws/board"), retry=SOON)
                for delay in SOON.delays:
                    assert (await late.saw("refused"))["status"] == 503
                    assert (await late.saw("retry"))["after"] == delay
                await late.saw("refused", "gave_up")
                await late.open(url_of(serve, "/ws/board"), retry=Retry((0.1,) * 500))
                await late.saw("refused")
                await one.close()
                await until_closed(one)
            await until_in(late)
            await caught_up(late)


async def test_a_page_of_another_site_is_kept_out(kind: str) -> None:  # S3-41, S3-43
    with trio.fail_after(SECONDS):
        async with running_serve(1) as serve, foreign(kind) as client:
            headers = {"Origin": "https://elsewhere.example"}
            await client.open(url_of(serve, "/ws/board"), retry=SOON, headers=headers)
            for _ in SOON.delays:
                assert (await client.saw("refused"))["status"] == 403
                await client.saw("retry")
            await client.saw("refused", "gave_up")


async def test_where_tokens_are_wanted_a_board_that_loses_its_own_stays_out(kind: str) -> None:  # S3-43
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    path, right = "/ws/board?token=", {"project:*": ["sub"]}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve, foreign(kind) as stranger:
            first, second = serve.worker_pids()
            for shown, status in (("", 401), (token("anna", channels={"project:7": ["sub"]}), 403)):
                await stranger.open(url_of(serve, path + shown))
                assert (await stranger.saw("refused"))["status"] == status
            async with (
                coming(kind, serve, path + token("anna", channels=right), first, retry=SOON) as anna,
                coming(kind, serve, path + token("bert", channels=right), second) as bert,
            ):
                await revoke(serve, "anna")
                await kept_out(anna, SOON)
                await caught_up(bert)


async def test_a_client_that_sends_too_much_is_warned_and_read_more_slowly_and_delays_nobody(kind: str) -> None:
    # S3-41, S3-42, S3-46
    settings = {"FANLINE_ENGINE_MESSAGES_PER_SECOND": "50"}
    pings = [{"type": "ping", "timestamp": number} for number in range(200)]
    with trio.fail_after(SECONDS):
        async with running_serve(1, env=settings) as serve, connect_nats(serve.producer_url) as backend:
            async with foreign(kind) as hostile, coming(kind, serve, "/ws/board") as board:
                await hostile.open(url_of(serve, "/ws"), says=pings)
                await hostile.saw("open")
                await publish(backend, "project:7", "log", {"n": 1})
                await board.heard("log")
                answers: list[dict[str, Any]] = []
                while not answers or answers[-1].get("timestamp") != pings[-1]["timestamp"]:
                    answers.append(await hostile.message())
                (warning,) = [answer for answer in answers if answer["type"] == "error"]
                assert "more slowly" in warning["message"]
                assert [answer["timestamp"] for answer in answers if answer["type"] == "pong"] == list(range(200))
                await caught_up(board)


async def test_a_client_comes_back_after_a_killed_worker_and_after_a_restart_and_hears_what_is_new_once(
    kind: str,
) -> None:
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, foreign(kind) as client, foreign(kind) as bystander:
            first, second = serve.worker_pids()
            await come(client, serve, "/ws/board", first, retry=BACK_OFF)
            await come(bystander, serve, "/ws/board", second, retry=BACK_OFF)
            await caught_up(client, bystander)
            async with connect_nats(serve.producer_url) as backend:
                await publish(backend, "project:7", "log", {"n": 1})
                for each in (client, bystander):
                    await each.heard("log")
                await kill(first)
                assert await until_closed(client) == 1006
                assert (await client.saw("retry"))["after"] == BACK_OFF.delays[0]
                await until_in(client)
                await caught_up(client)
                await publish(backend, "project:7", "log", {"n": 2})
                for each in (client, bystander):
                    assert (await each.heard("log"))["data"] == {"n": 2}
                await caught_up(client, bystander)

            os.kill(serve.pid, signal.SIGTERM)
            for each in (client, bystander):
                assert await until_closed(each) == 1012
                assert (await each.saw("retry"))["after"] == BACK_OFF.delays[0]
            await serve.start_again()
            for each in (client, bystander):
                await until_in(each)
                await caught_up(each)
            async with connect_nats(serve.producer_url) as backend:
                await publish(backend, "project:7", "log", {"n": 3})
                for each in (client, bystander):
                    assert (await each.heard("log"))["data"] == {"n": 3}
                await caught_up(client, bystander)
