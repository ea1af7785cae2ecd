"""The task board: what a plain client says of an item reaches its assignee and its project, each viewer once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, people, person

ITEM = {"task_id": "i1", "title": "Paint", "status": "todo", "assignee_id": "bert", "project_id": 7}


@asynccontextmanager
async def board(engine: RunningEngine) -> AsyncIterator[tuple[Person, Person, Person]]:
    """Anna, who speaks; Bert, the assignee, who sees the project as well; Carl, who sees the project alone."""
    async with people(engine, "Anna", "Bert", "Carl") as (anna, bert, carl):
        for each in (bert, carl):
            await each.ask({"type": "subscribe", "channel": "project:7"})
        yield anna, bert, carl


@pytest.mark.parametrize("form", ["data", "flat"])
async def test_an_item_reaches_its_assignee_and_its_project_each_viewer_once(form: str) -> None:
    # S1-08, S1-10, S1-31, S1-39, S2-56, S3-10
    said: dict[str, Any] = {"data": ITEM} if form == "data" else ITEM
    with trio.fail_after(10):
        async with running_engine() as engine, board(engine) as (anna, bert, carl):
            await anna.say({"type": "task_created", **said})
            heard = [await each.hear("task_created") for each in (bert, carl)]
            assert [each["channel"] for each in heard] == ["user:bert", "project:7"]
            for each in heard:
                assert (each["data"], each["task_id"], each["user_id"]) == (ITEM, "i1", "anna")
            assert len({each["message_id"] for each in heard}) == 1
            for client in (anna, bert, carl):
                await client.hears_nothing()


@pytest.mark.parametrize("kind", ["task_status_changed", "task_updated", "task_deleted"])
async def test_an_event_that_names_neither_still_reaches_both(
    kind: str,
) -> None:
    # S1-09, S1-32, S1-33, S3-11, S3-12, S3-13
    changed = {"task_id": "i1", "old_status": "todo", "new_status": "in_progress", "changed_by": "anna"}
    with trio.fail_after(10):
        async with running_engine() as engine, running_engine(broker=engine.broker) as other:
            async with board(engine) as (anna, bert, carl), person(other, "Dora") as dora:
                await anna.say({"type": "task_created", "data": ITEM})
                for each in (bert, carl):
                    await each.hear("task_created")
                await dora.say({"type": kind, "data": changed})
                for each in (bert, carl):
                    heard = await each.hear(kind)
                    assert (heard["data"], heard["project_id"]) == (changed, "7")
                    await each.hears_nothing()


async def test_the_items_of_a_project_are_a_first_list() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, person(engine, "Anna") as anna:
            assert (await anna.ask({"type": "get_tasks", "project_id": 7}))["tasks"] == []
            await anna.say({"type": "task_created", "data": ITEM})
            await anna.say({"type": "task_created", "data": {**ITEM, "task_id": 2}})
            await anna.say({"type": "task_status_changed", "data": {"task_id": "i1", "new_status": "done"}})
            listed = await anna.ask({"type": "get_tasks", "project_id": 7})
            assert (listed["type"], listed["tasks"]) == ("tasks", [{**ITEM, "task_id": 2}, {**ITEM, "status": "done"}])
            await anna.say({"type": "task_deleted", "data": {"task_id": "i1"}})
            await anna.say({"type": "task_updated", "data": {"task_id": 2, "project_id": 8}})
            assert (await anna.ask({"type": "get_tasks", "project_id": 7}))["tasks"] == []
            assert len((await anna.ask({"type": "get_tasks", "project_id": "8"}))["tasks"]) == 1


async def test_a_reset_is_for_its_project() -> None:  # S3-14, S3-24
    with trio.fail_after(10):
        async with running_engine() as engine, board(engine) as (anna, bert, carl):
            await anna.say({"type": "tasks_reset", "project_id": 7})
            for each in (bert, carl):
                assert (await each.hear("tasks_reset"))["project_id"] == "7"


async def test_each_copy_needs_the_right_to_publish_on_its_channel() -> None:
    rights = {"project:7": ["sub", "pub"], "project:8": ["sub"]}
    headers = {"Authorization": f"Bearer {token('anna', channels=rights)}"}
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, person(engine, **headers) as anna:
            await anna.say({"type": "task_created", "data": ITEM})
            await anna.hears_nothing()
            assert engine.broker.streams["project"].newest("project:7") == 1
            assert engine.broker.streams["user"].newest("user:bert") is None
            for denied in ({**ITEM, "task_id": "i2", "project_id": 8}, {"task_id": "nobody knows"}):
                answer = await anna.ask({"type": "task_created", "data": denied})
                assert (answer["type"], answer["message"]) == ("error", "Task access denied")
            assert (await anna.ask({"type": "task_updated", "data": {}}))["message"] == "Task ID required"
            assert (await anna.ask({"type": "get_tasks", "project_id": 9}))["message"] == "Channel access denied"
