"""The story of the agent console: what its clients say, hear and do, over other people's libraries, on two workers."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.engine.access.clients import token
from tests.integration.systems.console import ENVIRON, Console, console, hear, hears_nothing_more, leave, saw
from tests.support.foreign.client import KINDS, Foreign, Retry, foreign
from tests.support.foreign.examples import example, play
from tests.support.nats.inbox import until_acknowledged
from tests.support.servers.serve import kill, running_serve, serve_environ
from tests.support.tasks.on_worker import worker_at

SECONDS = 150
RIGHTS = {"project:7": ["sub"], "task:4*": ["sub", "call"], "task:50": ["sub"]}
WATCH = {"type": "subscribe", "channel": "task:42"}
INBOX = "user:anna"

PROJECT_EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("project_created", {"name": "Site"}),  # S2-81
    ("project_updated", {"name": "Web site"}),  # S2-81
    ("project_member_added", {"user_id": "bob"}),  # S2-82
    ("project_member_removed", {"user_id": "bob"}),  # S2-82
    ("project_git_sync", {"commits": 3}),  # S2-83
    ("project_config_changed", {"changed": ["model"]}),  # S2-83
    ("project_deleted", {}),  # S2-81
)
SYSTEM_EVENTS = (
    "system_maintenance_start",  # S2-84
    "system_maintenance_end",  # S2-84
    "system_service_disruption",  # S2-84
    "system_performance_alert",  # S2-85
    "system_security_alert",  # S2-85
)
RUN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("task_started", "task_started", {}),  # S2-69
    ("task_progress", "task_progress_update", {"percent": 50, "stage": "writing"}),
    ("task_progress_update", "task_progress_update", {"progress": 60}),
    ("task_output", "task_output", {"lines": ["one"]}),
    ("task_paused", "task_paused", {}),  # S2-74
    ("task_resumed", "task_resumed", {}),  # S2-75
)
ENDS = (
    ("43", "task_completed", {"result": {"files": 3}}, "COMPLETED"),  # S2-76
    ("44", "task_failed", {"error": {"message": "no"}}, "FAILED"),
    ("45", "task_cancelled", {"by": "anna"}, "CANCELLED"),  # S2-78
    ("46", "task_timeout", {"timeout": 0}, "TIMED_OUT"),  # S2-79
)
ERROR = "error"
ANSWERS: tuple[tuple[dict[str, Any] | str, dict[str, Any]], ...] = (
    ({"type": "ping", "timestamp": 5}, {"type": "pong", "timestamp": 5}),
    ({"type": "subscribe", "channel": "project:7"}, {"type": "subscription_result", "subscribed": True}),
    ({"type": "unsubscribe", "channel": "task:9"}, {"type": "unsubscription_result", "unsubscribed": True}),
    ({"type": "subscribe"}, {"type": ERROR, "message": "Channel name required"}),
    ({"type": "subscribe", "channel": "user:bob"}, {"type": ERROR, "message": "Channel access denied"}),  # S2-49
    ({"type": "subscribe", "channel": "project:8"}, {"type": ERROR, "message": "Channel access denied"}),  # S2-50
    ({"type": "subscribe", "channel": "task:9"}, {"type": ERROR, "message": "Channel access denied"}),  # S2-51
    ({"type": "subscribe", "channel": "system"}, {"type": ERROR, "message": "Channel access denied"}),  # S2-53
    ({"type": "subscribe", "channel": "rumours:1"}, {"type": ERROR, "message": "Channel access denied"}),  # S2-54
    ({"type": "task_cancel", "task_id": "50"}, {"type": ERROR, "message": "Task access denied"}),  # S2-51
    ({"type": "task_input", "task_id": "50"}, {"type": ERROR, "message": "Task ID and input required"}),
    ({"type": "task_cancel"}, {"type": ERROR, "message": "Task ID required"}),
    ({"type": "dance"}, {"type": ERROR, "message": "Unknown message type: dance"}),
    ({"data": {}}, {"type": ERROR, "message": "Missing message type"}),
    ("hello", {"type": ERROR, "message": "Invalid JSON format"}),
)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_whole_story(kind: str) -> None:  # S2-55
    with trio.fail_after(SECONDS):
        async with console() as at, foreign(kind) as anna, foreign(kind) as second, foreign(kind) as admin:
            await is_refused(at, anna)
            await connects(at, anna, second, admin)
            await is_answered(anna)
            await hears_the_project(at, anna, second, admin)
            await hears_the_system(at, anna, second, admin)
            await follows_a_task(at, anna)
            await hears_how_tasks_end(at, anna)
            await finds_what_came_while_it_was_offline(at, anna, second, admin)
            await comes_back(at, anna)
            await is_let_go(at, anna)


def of_anna(**claims: Any) -> dict[str, str]:
    """Connects as her."""
    shown = token("anna", ends_in=600, channels=RIGHTS, iat=time.time() - 5, **claims)
    return {"token": shown, "project_id": "7"}


async def is_refused(at: Console, anna: Foreign) -> None:
    """Before the upgrade, so that its class counts its tries, and gives up after the last one."""
    await anna.open(at.url(), retry=Retry((0.05,) * 5))
    for _ in range(5):
        assert (await saw(anna, "refused"))["status"] == 401
        await saw(anna, "retry")
    await saw(anna, "refused", "gave_up")
    for query, status, message in (
        ({}, 401, "Authentication required"),
        ({"token": "rubbish"}, 401, "Invalid token"),
        (of_anna() | {"project_id": "8"}, 403, "Project access denied"),
    ):
        await anna.open(at.url(**query))
        refused = await saw(anna, "refused")
        assert refused["status"] == status
        assert refused["body"] == "" or json.loads(refused["body"])["message"] == message  # 13.1 hides the body


async def connects(at: Console, anna: Foreign, second: Foreign, admin: Foreign) -> None:
    """Anna twice, once on each worker; she watches a task."""
    # S2-01, S2-02, S2-08
    worker = await at.come(anna, of_anna(), says=[WATCH])
    assert (await hear(anna, "subscription_result"))["channel"] == "task:42"
    await at.come(second, of_anna(), other_than=worker)
    watch = {"type": "subscribe", "channel": "system"}
    await at.come(admin, {"token": token("root", roles=["admin"], ends_in=600)}, says=[watch])
    assert (await hear(admin, "subscription_result"))["channel"] == "system"  # S2-53


async def is_answered(anna: Foreign) -> None:
    for sent, expected in ANSWERS:  # S2-29, S2-30
        await anna.send(sent)
        answer = await anna.message() if expected["type"] == "pong" else await hear(anna, expected["type"])
        assert {key: answer[key] for key in expected} == expected


async def hears_the_project(at: Console, anna: Foreign, second: Foreign, admin: Foreign) -> None:
    """Both of her connections hear each event once, although one has subscribed as well; nobody else does."""
    # S2-57, S2-63, S2-65, S2-88
    about = {"category": "project", "project_id": "7"}
    for event, data in PROJECT_EVENTS:
        await at.emit("project:7", event, data, **about, user_id="bob")
        for client in (anna, second):
            message = await hear(client, event)
            assert message["message_id"]
            assert (message["data"], message["channel"]) == (data, "project:7")
            assert {key: message[key] for key in about} == about
            assert message["user_id"] == "bob"  # S2-66
    await hears_nothing_more(anna, second, admin)


async def hears_the_system(at: Console, anna: Foreign, second: Foreign, admin: Foreign) -> None:
    # S2-52, S2-58
    for event in SYSTEM_EVENTS:
        payload = b'{"v":1,"e":"%s","pr":%d,"d":{"text":"now"}}'
        for priority, hearers in ((5, (admin,)), (8, (admin, anna, second))):
            await at.backend.ask("fanline.pub.system.all", payload % (event.encode(), priority))
            for client in hearers:
                message = await hear(client, event)
                assert (message["channel"], message["priority"]) == ("system", priority)
    await hears_nothing_more(anna, second, admin)


async def follows_a_task(at: Console, anna: Foreign) -> None:
    for event, shown, data in RUN:
        await at.producer.say(event, **data)
        message = await hear(anna, shown)
        assert (message["task_id"], message["channel"]) == ("42", "task:42")  # compared with `===`
    await at.producer.say("task_confirmation_required", message="Deploy?")
    assert (await hear(anna, "task_confirmation_required"))["data"]["message"] == "Deploy?"
    await anna.send({"type": "task_input", "task_id": "42", "input": "yes"})  # S2-73
    assert await result(anna, "input_result") == {"task_id": "42", "success": True}
    assert at.producer.calls[-1]["e"] == "approve"
    await anna.send({"type": "task_input", "task_id": 42, "input": ""})  # S2-42, S2-43
    assert await result(anna, "input_result") == {"task_id": 42, "success": True}
    await anna.send({"type": "task_cancel", "task_id": "42"})  # S2-45
    assert await result(anna, "cancel_result") == {"task_id": "42", "success": True}
    await at.producer.say("task_cancelled")
    assert (await told_until(anna, "task_cancelled"))["data"]["state"] == "cancelled"


async def told_until(anna: Foreign, kind: str) -> dict[str, Any]:
    """What the engine says of a task in between is passed over."""
    message = await anna.message()
    while message["type"] != kind:
        assert message["type"].startswith("task_"), message
        message = await anna.message()
    return message


async def result(anna: Foreign, kind: str) -> dict[str, Any]:
    message = await told_until(anna, kind)
    return {key: message[key] for key in ("task_id", "success")}


async def hears_how_tasks_end(at: Console, anna: Foreign) -> None:
    await hear(anna, "task_status_change")
    for task, event, data, status in ENDS:
        channel = f"task:{task}"
        await anna.send({"type": "subscribe", "channel": channel})
        await hear(anna, "subscription_result")
        await at.emit(channel, "task_started", {})
        await hear(anna, "task_started")
        await hear(anna, "task_status_change")
        await at.emit(channel, event, data)
        assert (await hear(anna, event))["task_id"] == task
        assert (await hear(anna, "task_status_change"))["data"]["status"] == status


async def finds_what_came_while_it_was_offline(at: Console, anna: Foreign, second: Foreign, admin: Foreign) -> None:
    last = await at.emit(INBOX, "notification", {"text": "live"})
    for client in (anna, second):  # S2-09, S2-19, S2-22
        assert (await hear(client, "notification"))["channel"] == INBOX
    await hears_nothing_more(admin)
    await until_acknowledged(at.store, INBOX, last)
    await leave(anna, second)
    for text in ("first", "second", "third"):
        last = await at.emit(INBOX, "notification", {"text": text})
    worker = await at.come(anna, of_anna(), says=[WATCH])
    # S2-10, S2-13: what she had heard does not come again
    assert [(await hear(anna, "notification"))["data"]["text"] for _ in range(3)] == ["first", "second", "third"]
    await hear(anna, "subscription_result")
    await until_acknowledged(at.store, INBOX, last)
    for _ in range(2):  # S2-11: nor does it on any worker
        await leave(anna)
        worker = await at.come(anna, of_anna(), says=[WATCH], other_than=worker)
        await hear(anna, "subscription_result")
        await hears_nothing_more(anna)


async def comes_back(at: Console, anna: Foreign) -> None:
    """After a killed worker, one that is stopped, and what is too long, as after any code but 1000."""
    for code in (1006, 1012, 1009):
        worker = worker_at(at.serve, anna.process.pid)
        assert worker
        if code == 1006:
            await kill(worker)
        elif code == 1012:
            os.kill(worker, signal.SIGTERM)
        else:
            await anna.send("x" * 70_000)
        assert (await saw(anna, "close"))["code"] == code
        await saw(anna, "retry", "open")
        await hear(anna, "connection_established")
        await hear(anna, "subscription_result")
        await at.emit("project:7", "project_updated", {})
        await hear(anna, "project_updated")


async def is_let_go(at: Console, anna: Foreign) -> None:
    """A token that is taken back ends the connection, and her class gives up; with another one it is there again."""
    revoke = [sys.executable, "-P", "-m", "fanline", "revoke", "--user", "anna"]
    await trio.run_process(revoke, env=serve_environ(at.serve.directory), capture_stdout=True)
    ends: list[int] = []
    while (report := await anna.seen())["saw"] != "gave_up":
        if report["saw"] == "open":  # by a worker that has not heard of it: for a second at most
            ends.clear()
        elif report["saw"] in ("close", "refused"):
            ends.append(report.get("code") or report["status"])
    assert ends == [1008, *[401] * 5]
    fresh = token("anna", ends_in=600, channels=RIGHTS, iat=time.time() + 2)
    await at.come(anna, {"token": fresh})
    await leave(anna)  # for good: what is seen next is another connection
    await anna.open(at.url())
    await saw(anna, "refused")


@pytest.mark.parametrize(("answer", "outcome"), [("yes", "deployed"), ("not today", "not deployed")])
async def test_the_example_watches_a_run_and_answers_its_question(answer: str, outcome: str, tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=ENVIRON) as serve:
            shown = token("anna", ends_in=600, channels={"task:*": ["sub", "call"]})
            arguments = ("run-1", answer, serve.url, shown)
            async with example(serve, tmp_path, "agent_console/client.mjs", *arguments) as lines:
                assert await lines.receive() == "watching"
                assert await play(serve, tmp_path, "agent_console/producer.py", "run-1") == []
                seen = [line for line in await lines.rest() if "%" not in line]
            steps = ["reading the code", "writing the fix", "running the tests"]
            assert seen == [*steps, "Deploy it?", outcome, "COMPLETED"]
