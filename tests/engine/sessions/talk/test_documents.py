"""Documents that several plain clients edit."""

import trio

from tests.engine.running import running_engine
from tests.engine.sessions.talk.people import Person, people


async def edit(client: Person, text: str, position: int = 0) -> None:
    said = {"type": "document_edit", "document_id": "d1", "operation": "insert", "position": position, "content": text}
    await client.say(said)


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
