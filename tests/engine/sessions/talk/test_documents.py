"""Documents that several plain clients edit."""

from typing import Any

import pytest
import trio

from tests.engine.running import running_engine
from tests.engine.sessions.talk.people import Person, people, person


async def edit(client: Person, text: str, position: int = 0, document_id: str | int = "d1") -> None:
    operation = {"operation": "insert", "position": position, "content": text}
    await client.say({"type": "document_edit", "document_id": document_id, **operation})


async def test_edits_reach_the_others_in_one_order_that_the_server_gives() -> None:  # S1-37, S1-44
    with trio.fail_after(10):
        async with running_engine() as engine, people(engine, "Anna", "Bert", "Carl") as (anna, bert, carl):
            for each in (anna, bert, carl):
                await each.ask({"type": "subscribe", "channel": "doc:d1"})
            for number in range(10):
                await edit((anna, bert)[number % 2], str(number), number)
            seen = [await carl.hear("document_edit") for _ in range(10)]
            order = [each["sequence"] for each in seen]
            assert order == sorted(set(order))
            assert {each["data"]["content"] for each in seen} == {str(number) for number in range(10)}
            assert {each["document_id"] for each in seen} == {"d1"}
            assert {each["username"] for each in seen} == {"Anna", "Bert"}
            for each, name in ((anna, "anna"), (bert, "bert")):
                got = [await each.json() for _ in range(10)]
                own = [each["sequence"] for each in got if each["type"] == "message_status_update"]
                others = [each["sequence"] for each in got if each["type"] == "document_edit"]
                assert own == [each["sequence"] for each in seen if each["user_id"] == name]
                assert others == [each["sequence"] for each in seen if each["user_id"] != name]


async def test_an_edit_needs_a_document_and_an_operation() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, people(engine, "Anna") as (anna,):
            assert (await anna.ask({"type": "document_edit", "operation": "x"}))["message"] == "Document id required"
            assert (await anna.ask({"type": "document_edit", "document_id": 1}))["message"] == "Operation required"


def users(message: dict[str, Any]) -> set[str]:
    return {each["username"] for each in message["data"]["collaborators"]}


async def test_a_collaboration_begins_and_ends_with_the_list_of_those_who_work_on_the_document() -> None:  # S1-43
    with trio.fail_after(20):
        async with running_engine() as one, running_engine(broker=one.broker) as other:
            async with person(one, "Anna") as anna, person(other, "Bert") as bert:
                answer = await anna.ask({"type": "collaboration_start", "document_id": 1})
                assert (answer["type"], answer["document_id"], users(answer)) == ("collaboration_start", 1, {"Anna"})
                answer = await bert.ask({"type": "collaboration_start", "document_id": 1})
                assert users(answer) == {"Anna", "Bert"}
                notice = await anna.hear("collaboration_start")
                assert users(notice) == {"Anna", "Bert"}
                assert (notice["user"]["username"], notice["document_id"]) == ("Bert", "1")
                await edit(bert, "x", document_id=1)
                assert (await anna.hear("document_edit"))["data"]["content"] == "x"
                await bert.hear("message_status_update")
                answer = await bert.ask({"type": "collaboration_end", "document_id": 1})
                assert (answer["type"], users(answer)) == ("collaboration_end", {"Anna"})
                assert users(await anna.hear("collaboration_end")) == {"Anna"}


@pytest.mark.parametrize("by", ["unsubscribe", "end"])
async def test_who_goes_works_on_nothing_any_more(by: str) -> None:  # S1-43
    with trio.fail_after(10):
        async with running_engine() as engine, people(engine, "Anna", "Bert") as (anna, bert):
            for each in (anna, bert):
                await each.ask({"type": "collaboration_start", "document_id": "d1"})
            await anna.hear("collaboration_start")
            if by == "end":
                await bert.stream.aclose()
            else:
                await bert.ask({"type": "unsubscribe", "channel": "doc:d1"})
            assert users(await anna.hear("collaboration_end")) == {"Anna"}
