"""The task board: what is said of an item reaches its assignee and its project, each viewer once, and is remembered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBus
from fanline.protocol.compat.board import BoardAnswer, BoardUpdate, decode_answer, encode_update
from fanline.protocol.nats.names import BOARD_SUBJECT
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


# --- what producers say ------------------------------------------------------------------------------------------


async def update(engine: RunningEngine, event: str, data: Any, message_id: str = "m1") -> BoardAnswer:
    """A producer tells of an item."""
    asked = encode_update(BoardUpdate(event, data, message_id))
    return decode_answer(await MemoryBus(engine.broker).ask(BOARD_SUBJECT, asked, 5))


async def test_what_a_producer_says_of_an_item_is_in_the_list_of_its_project() -> None:  # S1-07, S1-09
    with trio.fail_after(10):
        async with running_engine() as engine, board(engine) as (anna, bert, carl):
            assert await update(engine, "task_created", ITEM) == BoardAnswer()
            heard = [await each.hear("task_created") for each in (bert, carl)]
            assert [each["channel"] for each in heard] == ["user:bert", "project:7"]
            assert [(each["data"], each["task_id"], each["project_id"]) for each in heard] == [(ITEM, "i1", "7")] * 2
            changed = {"task_id": "i1", "old_status": "todo", "new_status": "done"}
            assert await update(engine, "task_status_changed", changed, "m2") == BoardAnswer()
            for each in (bert, carl):
                assert (await each.hear("task_status_changed"))["project_id"] == "7"
                await each.hears_nothing()
            listed = await anna.ask({"type": "get_tasks", "project_id": 7})
            assert listed["tasks"] == [{**ITEM, "status": "done"}]
            await anna.say({"type": "task_updated", "data": {"task_id": "i1", "title": "Varnish"}})
            assert (await carl.hear("task_updated"))["project_id"] == "7"
            assert await update(engine, "task_deleted", {"task_id": "i1"}, "m3") == BoardAnswer()
            assert (await anna.ask({"type": "get_tasks", "project_id": 7}))["tasks"] == []


async def test_an_update_that_is_repeated_is_told_once() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, board(engine) as (_, bert, carl):
            for _ in range(2):
                assert await update(engine, "task_created", ITEM) == BoardAnswer()
            for each in (bert, carl):
                await each.hear("task_created")
                await each.hears_nothing()


async def test_one_worker_takes_an_update() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, running_engine(broker=engine.broker), board(engine) as (_, bert, _):
            asked = encode_update(BoardUpdate("task_created", ITEM, "m1"))
            assert len(await MemoryBus(engine.broker).ask_all(BOARD_SUBJECT, asked, 0.1, 2)) == 1
            await bert.hear("task_created")


@pytest.mark.parametrize(
    ("event", "data", "error"),
    [
        ("task_updated", {"task_id": "new"}, "no project_id and no assignee_id, and it is not known to the server"),
        ("tasks_reset", {}, "no project_id and no assignee_id, and there is no task_id"),
        ("task_updated", {"task_id": "i1", "project_id": "p" * 300}, "it is not known whom"),
    ],
)
async def test_an_update_that_concerns_nobody_is_refused(event: str, data: Any, error: str) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            answer = await update(engine, event, data)
            assert error in answer.error
            assert not answer.retry


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"event":"","data":{},"id":"m"}', b'{"event":"e","id":"m"}'])
async def test_what_is_no_update_is_refused(payload: bytes) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            answer = decode_answer(await MemoryBus(engine.broker).ask(BOARD_SUBJECT, payload, 5))
            assert answer.error.startswith("not an update of an item")
            assert not answer.retry


async def test_while_the_store_is_away_a_producer_is_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:

            async def away(*_: Any) -> None:
                raise BusError("NATS is away")

            monkeypatch.setattr(MemoryBus, "kv_get", away)
            assert await update(engine, "task_created", ITEM) == BoardAnswer("NATS is away", retry=True)
