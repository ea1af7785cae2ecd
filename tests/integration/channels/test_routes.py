"""The default routes of a real server with two workers, visited by a client that is not ours."""

import json
import sys
from typing import Any

import trio

from tests.engine.access.clients import SECRET, token
from tests.support.servers.serve import running_serve

# `websockets` runs in a process of its own: in this one asyncio is not wanted. It plays a list of visits, each from
# (path, what it sends) to what it hears, or to the status and body of the refusal.
PLAYER = """
import json, sys
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

for path, says, hears in json.load(sys.stdin)["visits"]:
    try:
        with connect(sys.argv[1] + path, open_timeout=10, proxy=None) as client:
            heard = [json.loads(client.recv(timeout=10)) for _ in range(hears[0])]
            for message, count in zip(says, hears[1:]):
                client.send(message if isinstance(message, str) else json.dumps(message))
                heard += [json.loads(client.recv(timeout=10)) for _ in range(count)]
            print(json.dumps(heard), flush=True)
    except InvalidStatus as error:
        print(json.dumps([error.response.status_code, json.loads(error.response.body)]), flush=True)
"""
ENVIRON = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}


async def play(url: str, visits: list[tuple[str, list[Any], list[int]]]) -> list[Any]:
    """What was heard at each visit."""
    done = await trio.run_process(
        [sys.executable, "-c", PLAYER, url],
        stdin=json.dumps({"visits": visits}).encode(),
        capture_stdout=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_the_default_routes_are_served_by_every_worker() -> None:
    anna = token("anna", channels={"project:*": ["sub"], "task:*": ["sub"], "session:*": ["sub", "pub"]})
    with trio.fail_after(100):
        async with running_serve(2, env=ENVIRON) as serve:
            url = serve.url.removesuffix("/ws")
            visits: list[tuple[str, list[Any], list[int]]] = [
                ("/ws", [], [1]),  # S2-04
                ("/ws?token=rubbish", [], [1]),  # S2-05
                (f"/ws?project_id=7&token={token('bob')}", [], [1]),  # S2-06
                ("/nothing", [], [1]),
                (f"/ws?token={anna}&project_id=7", [{"type": "subscribe", "channel": "project:7"}], [1, 1]),  # S2-03
                (f"/?token={anna}", [{"type": "ping", "timestamp": 5}], [1, 1]),  # S1-05
                (f"/ws/board?token={anna}&project_id=7", [], [1]),
                (f"/ws/chat/session/9?token={anna}", [{"type": "new_message", "session_id": 9, "data": {}}], [1, 1]),
                ("/ws/health", [{"type": "ping", "timestamp": 5}], [1, 1]),  # S5-04, S5-05, S5-06
                (f"/ws/review/123?token={anna}", [{"type": "heartbeat", "timestamp": 5}], [2, 1]),  # S5-09, S5-16
                ("/ws/test/c1", ["hello", {"a": 1}], [1, 1, 1]),  # S5-23, S5-24, S5-25
            ]
            for heard in [await play(url, visits) for _ in range(3)]:  # of two workers one may serve a visit
                check(heard)


def check(heard: list[Any]) -> None:
    refusals, (project, root, board, chat, health, review, echo) = heard[:4], heard[4:]
    assert refusals == [
        [401, {"error": "unauthenticated", "message": "Authentication required"}],
        [401, {"error": "unauthenticated", "message": "Invalid token"}],
        [403, {"error": "forbidden", "message": "Project access denied"}],
        [404, {"error": "not_found", "message": "there is nothing at this path"}],
    ]
    assert [each["type"] for each in project] == ["connection_established", "subscription_result"]
    assert (root[1]["type"], root[1]["timestamp"]) == ("pong", 5)
    assert [each["type"] for each in board] == ["connection_established"]
    assert [each["type"] for each in chat[1:]] == ["message_status_update"]
    assert (health[0]["type"], health[1]["server_time"].isdigit()) == ("welcome", True)
    assert [each["type"] for each in review] == ["connection", "status", "heartbeat_ack"]
    assert (review[0]["task_id"], review[1]["task_id"]) == (123, 123)
    assert [each.get("original_message") for each in echo] == [None, "hello", {"a": 1}]
    assert all("timestamp" in each for visit in heard[4:] for each in visit)
