"""Who is online in a room, as plain clients are told without any setting: in projects and in sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from fanline.engine.presence import attendance
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, person

ROOMS = pytest.mark.parametrize("path", ["/ws", "/ws/chat"])


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "LINGER_SECONDS", 0.0)


@asynccontextmanager
async def listener(engine: RunningEngine, path: str, name: str = "Anna") -> AsyncIterator[Person]:
    """Somebody who listens to who is online in the room 7, and has heard that it is itself."""
    async with person(engine, name, path) as client:
        client.notices = True
        await client.say({"type": "join_room", "room_id": "7"})
        assert {(await client.json())["type"] for _ in range(2)} == {"session_joined", "user_online"}
        yield client


async def hear_all(client: Person, *kinds: str) -> dict[str, dict[str, object]]:
    """The next messages, by their types: notices of presence come on a way of their own."""
    heard = [await client.json() for _ in kinds]
    assert sorted(each["type"] for each in heard) == sorted(kinds)
    return {each["type"]: each for each in heard}


@ROOMS
async def test_a_room_says_who_comes_online_and_goes_offline_out_of_the_box(path: str) -> None:  # S1-34, S1-35
    with trio.fail_after(20):
        async with running_engine() as engine, running_engine(broker=engine.broker) as other:
            async with listener(engine, path) as anna:
                async with person(other, "Bert", path) as bert:
                    await bert.ask({"type": "join_room", "room_id": "7"})
                    online = (await hear_all(anna, "session_joined", "user_online"))["user_online"]
                    assert (online["user_id"], online["data"]) == ("bert", {"user_id": "bert", "username": "Bert"})
                    assert online["channel"] == ("project:7" if path == "/ws" else "session:7")
                    assert online["timestamp"]
                    assert online["message_id"]
                offline = (await hear_all(anna, "session_left", "user_offline"))["user_offline"]
                assert (offline["user_id"], offline["channel"]) == ("bert", online["channel"])


@ROOMS
async def test_it_says_who_is_there_when_it_is_asked(path: str) -> None:  # S1-40
    with trio.fail_after(20):
        async with running_engine() as engine, listener(engine, path), person(engine, "Bert", path) as bert:
            await bert.ask({"type": "join_room", "room_id": "7"})
            users: list[str] = []
            while users != ["anna", "bert"]:
                answer = await bert.ask({"type": "get_online_users", "channel": "7"})
                assert answer["type"] == "online_users"
                users = sorted(user["user_id"] for user in answer["users"])
            assert answer["count"] == 2


@pytest.mark.parametrize(("right", "is_told"), [("sub+presence", True), ("sub", False)])
async def test_where_tokens_count_only_those_with_the_right_are_told(right: str, is_told: bool) -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access()) as engine:
            shown = token("anna", channels={"project:*": right.split("+")})
            async with person(engine, Authorization=f"Bearer {shown}") as anna:
                anna.notices = True
                await anna.say({"type": "subscribe", "channel": "7"})
                heard = ["subscription_result", *(["user_online"] if is_told else [])]
                await hear_all(anna, *heard)
                asked = await anna.ask({"type": "get_online_users", "channel": "7"})
                assert asked["type"] == ("online_users" if is_told else "error")


async def test_who_has_no_name_and_who_hears_all_projects_is_nobody_s_news() -> None:  # S3-01
    with trio.fail_after(20):
        async with running_engine() as engine, listener(engine, "/ws") as anna:
            async with person(engine, path="/ws/board") as board, person(engine, path="/ws/board?project_id=7"):
                board.notices = True
                counts = 0
                while counts != 1:
                    answer = await anna.ask({"type": "get_online_users", "channel": "7"})
                    counts = answer.get("anonymous", 0)
                assert (answer["count"], answer["connections"]) == (1, 2)
                for each in (anna, board):
                    await each.hears_nothing()
