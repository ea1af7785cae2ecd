"""Messages of a chat between plain clients: to the others, with receipts for the sender."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, person


@asynccontextmanager
async def chat(engine: RunningEngine) -> AsyncIterator[tuple[Person, Person]]:
    """Two who are in one session."""
    async with person(engine, "Anna", "/ws/chat") as anna, person(engine, "Bert", "/ws/chat") as bert:
        for each in (anna, bert):
            await each.ask({"type": "subscribe", "channel": "9"})
        yield anna, bert


def message(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "new_message", "session_id": "9", "data": {"text": text}, **fields}


async def test_a_message_goes_to_the_others_and_its_sender_is_told_its_id_under_the_client_s_own() -> None:
    # S4-21, S4-23
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, bert):
            sent = await anna.ask(message("hello", message_id="mine-1"))
            assert sent["type"] == "message_status_update"
            assert (sent["status"], sent["client_message_id"]) == ("sent", "mine-1")
            heard = await bert.hear("new_message")
            assert (heard["data"], heard["message_id"]) == ({"text": "hello"}, sent["message_id"])
            assert (heard["user_id"], heard["username"], heard["session_id"]) == ("anna", "Anna", "9")
            assert (await anna.hear("message_status_update"))["status"] == "delivered"
            await anna.hears_nothing()


async def test_two_messages_under_way_are_told_apart() -> None:  # S4-23
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, _):
            for number in (1, 2):
                await anna.say(message("hello", message_id=number))
            answers = [await anna.hear("message_status_update") for _ in range(4)]
            sent = [each for each in answers if each["status"] == "sent"]
            assert [each["client_message_id"] for each in sent] == [1, 2]
            delivered = {each["client_message_id"]: each["message_id"] for each in answers if each not in sent}
            assert delivered == {each["client_message_id"]: each["message_id"] for each in sent}
            assert len({*delivered.values()}) == 2
            assert "client_message_id" not in await anna.ask(message("bye"))


async def test_the_sender_learns_who_has_read_a_message() -> None:  # S4-23
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, bert):
            sent = await anna.ask(message("hello", message_id="mine-1"))
            heard = await bert.hear("new_message")
            assert (await anna.hear("message_status_update"))["status"] == "delivered"
            await bert.say({"type": "message_read", "message_id": heard["message_id"]})
            read = await anna.hear("message_status_update")
            assert (read["message_id"], read["client_message_id"]) == (sent["message_id"], "mine-1")
            assert (read["status"], read["user_id"], read["session_id"]) == ("read", "bert", "9")
            assert read["data"]["status"] == "read"
            await bert.hears_nothing()


async def test_nobody_reads_what_it_does_not_see() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, _), person(engine, "Carl") as carl:
            sent = await anna.ask(message("hello"))
            assert (await anna.hear("message_status_update"))["status"] == "delivered"
            answer = await carl.ask({"type": "message_read", "message_id": sent["message_id"]})
            assert (answer["type"], answer["message"]) == ("error", "Message not found")
            assert (await carl.ask({"type": "message_read"}))["message"] == "Message id required"
            await anna.say(
                {"type": "message_read", "message_id": sent["message_id"]}
            )  # its own: there is nothing to say
            await anna.hears_nothing()


async def test_a_client_cannot_set_what_the_server_says_of_it() -> None:  # S3-43
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, bert):
            await anna.say(message("hello", user_id="carl", username="Carl", timestamp="never"))
            heard = await bert.hear("new_message")
            assert (heard["user_id"], heard["username"]) == ("anna", "Anna")
            assert heard["timestamp"] != "never"


async def test_the_client_s_own_id_of_a_message_is_small() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, chat(engine) as (anna, bert):
            assert (await anna.ask(message("hello", message_id="x" * 5000)))["type"] == "error"
            await bert.hears_nothing()
