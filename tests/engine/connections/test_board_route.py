"""`/ws/board`, and other routes that join whole namespaces."""

import pytest
import trio

from fanline.engine.routes import Route
from tests.engine.access.clients import token_access
from tests.engine.connections.test_routes import PROJECTS, V1, bearer, publish, refused, serving, visiting
from tests.engine.running import RunningEngine
from tests.support.raw_client import RawClient


async def on_the_board(client: RawClient) -> None:
    """Its first message has come, and the client has joined what it joins."""
    assert (await client.json())["type"] == "connection_established"
    assert (await client.ask({"type": "ping"}))["type"] == "pong"


async def test_without_a_project_the_board_hears_all_projects_and_with_one_only_that() -> None:  # S3-01, S3-06, S3-24
    async with serving() as engine, visiting(engine, "/ws/board") as all_of_them:
        async with visiting(engine, "/ws/board?project_id=2") as one:
            for client in (all_of_them, one):
                await on_the_board(client)
            for project in (1, 2, 3):
                await publish(engine, f"project:{project}", "task_created", {"n": project})
            heard = [await all_of_them.json() for _ in range(3)]
            assert [(each["channel"], each["project_id"], each["data"]) for each in heard] == [
                (f"project:{project}", str(project), {"n": project}) for project in (1, 2, 3)
            ]
            assert (await one.json())["channel"] == "project:2"
            for client in (all_of_them, one):
                assert (await client.ask({"type": "ping"}))["type"] == "pong"


async def test_a_viewer_of_the_board_who_subscribes_to_a_project_hears_it_once() -> None:
    async with serving() as engine, visiting(engine, "/ws/board") as client:
        await on_the_board(client)
        assert (await client.ask({"type": "subscribe", "channel": "project:1"}))["type"] == "subscription_result"
        await publish(engine, "project:1", "task_created")
        assert (await client.json())["type"] == "task_created"
        assert (await client.ask({"type": "ping"}))["type"] == "pong"
        assert (await client.ask({"type": "unsubscribe", "channel": "project:*"}))["unsubscribed"] is True


@pytest.mark.parametrize("subprotocol", [None, V1])
async def test_all_projects_need_the_right_to_all_of_them(subprotocol: str | None) -> None:
    async with serving(token_access()) as engine:
        async with visiting(engine, "/ws/board", subprotocol, **bearer(channels=PROJECTS)) as client:
            assert await client.json()
        few = bearer(channels={"project:1": ["sub"]})
        if subprotocol is None:
            assert (await refused(engine, "/ws/board", **few))[1]["message"] == "Project access denied"
        else:
            async with visiting(engine, "/ws/board", subprotocol, **few) as client:
                assert (await client.json())["d"]["code"] == "permission_denied"


async def wait_joined(engine: RunningEngine, channels: int) -> None:
    with trio.fail_after(10):
        while engine.server.statistics().channels != channels:
            await trio.sleep(0.01)


@pytest.mark.parametrize("subprotocol", [None, V1])
async def test_a_route_may_join_all_tasks_live_and_need_not_know_any(subprotocol: str | None) -> None:
    route = Route(joins=("task:*",), must_exist=True)
    async with serving(all=route) as engine, visiting(engine, "/all", subprotocol) as client:
        await client.json()
        await wait_joined(engine, 1)
        if subprotocol is not None:
            assert (await client.json())["c"] == "task:*"
        await publish(engine, "task:7", "task_started", {})
        heard = await client.json()
        assert (heard.get("channel") or heard["c"]) == "task:7"
