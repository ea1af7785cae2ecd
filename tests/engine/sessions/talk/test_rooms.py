"""Rooms of plain clients: who comes and goes, who types, and how everybody is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from fanline.engine.namespaces import Namespace
from fanline.engine.settings import EngineSettings
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, people, person
from tests.support.raw_client import connect


@asynccontextmanager
async def room(engine: RunningEngine, *names: str, room_id: str | int = "p1") -> AsyncIterator[list[Person]]:
    """Clients that are in one room, and have heard of each other."""
    async with people(engine, *names) as found:
        for number, each in enumerate(found):
            await each.say({"type": "join_room", "room_id": room_id, "room_name": "My Project"})
            await each.hear("session_joined")
            for other in found[:number]:
                await other.hear("session_joined")
        yield found


async def test_who_joins_a_room_is_told_so_and_the_others_learn_who_has_come() -> None:
    # S1-28, S1-38, S1-41, S2-106, S4-19
    with trio.fail_after(10):
        async with running_engine() as engine, people(engine, "Anna", "Bert") as (anna, bert):
            answer = await anna.ask({"type": "join_room", "room_id": "project_123", "room_name": "My Project"})
            assert (answer["type"], answer["room_id"]) == ("session_joined", "project_123")
            assert answer["user"] == {"user_id": "anna", "username": "Anna"}
            answer = await bert.ask({"type": "join_room", "room_id": "project_123", "room_name": "My Project"})
            assert answer["user"]["user_id"] == "bert"
            notice = await anna.hear("session_joined")
            assert notice["channel"] == "project:project_123"
            assert (notice["room_id"], notice["room_name"]) == ("project_123", "My Project")
            assert notice["data"]["user"] == notice["user"] == {"user_id": "bert", "username": "Bert"}
            assert notice["message_id"]
            assert notice["timestamp"].endswith("Z")  # S1-25
            await bert.hears_nothing()


@pytest.mark.parametrize("room_id", [7, "7", "two words"])
async def test_a_room_id_comes_back_as_it_was(room_id: int | str) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, people(engine, "Anna") as (anna,):
            for kind, answered in (("join_room", "session_joined"), ("leave_room", "session_left")):
                answer = await anna.ask({"type": kind, "room_id": room_id})
                assert (answer["type"], answer["room_id"]) == (answered, room_id)


async def test_who_leaves_a_room_hears_no_more_of_it_and_the_others_learn_that() -> None:  # S4-20
    with trio.fail_after(10):
        async with running_engine() as engine, room(engine, "Anna", "Bert") as (anna, bert):
            assert (await bert.ask({"type": "leave_room", "room_id": "p1"}))["type"] == "session_left"
            assert (await anna.hear("session_left"))["user"]["user_id"] == "bert"
            await anna.say({"type": "typing", "room_id": "p1", "is_typing": True})
            await anna.hears_nothing()
            await bert.hears_nothing()
            assert (await bert.ask({"type": "leave_room", "room_id": "p1"}))["type"] == "session_left"
            await anna.hears_nothing()


@pytest.mark.parametrize("by", ["unsubscribe", "end"])
async def test_others_learn_of_any_other_way_of_leaving(by: str) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, room(engine, "Anna", "Bert") as (anna, bert):
            if by == "unsubscribe":
                await bert.ask({"type": "unsubscribe", "channel": "p1"})
            else:
                await bert.stream.aclose()
            assert (await anna.hear("session_left"))["user_id"] == "bert"


async def test_the_route_of_a_session_tells_its_peers_who_comes_and_goes() -> None:  # S4-02, S4-19, S4-20
    path = "/ws/chat/session/9"
    access = token_access()
    rights = {"session:*": ["sub", "pub"]}
    with trio.fail_after(10):
        async with running_engine(access=access) as engine:
            anna_token = {"Authorization": f"Bearer {token('anna', username='Anna', channels=rights)}"}
            bert_token = {"Authorization": f"Bearer {token('bert', username='Bert', channels=rights)}"}
            async with person(engine, path=path, **anna_token) as anna:
                async with person(engine, path=path, **bert_token):
                    notice = await anna.hear("session_joined")
                    assert notice["user"] == {"user_id": "bert", "username": "Bert"}
                    assert notice["session_id"] == "9"
                assert (await anna.hear("session_left"))["user"]["username"] == "Bert"


async def test_typing_goes_to_the_others_and_is_stored_nowhere() -> None:  # S4-22
    with trio.fail_after(10):
        async with running_engine() as engine, room(engine, "Anna", "Bert") as (anna, bert):
            stored = engine.broker.streams["project"].state().last
            for is_typing in (True, False):
                await anna.say({"type": "typing", "room_id": "p1", "is_typing": is_typing})
                heard = await bert.hear("typing")
                assert (heard["is_typing"], heard["data"]) == (is_typing, {"is_typing": is_typing})
                assert (heard["user_id"], heard["username"], heard["room_id"]) == ("anna", "Anna", "p1")
            await anna.hears_nothing()
            assert engine.broker.streams["project"].state().last == stored


async def test_a_status_reaches_once_whoever_shares_a_room() -> None:  # S1-42, S2-107, S4-28
    with trio.fail_after(10):
        async with running_engine() as engine, room(engine, "Anna", "Bert") as (anna, bert):
            async with person(engine, "Carl") as carl:
                for each in (anna, bert):
                    await each.ask({"type": "join_room", "room_id": "p2"})
                await anna.hear("session_joined")
                await anna.say({"type": "user_status", "status": "away"})
                heard = await bert.hear("user_status_update")
                assert (heard["user_id"], heard["status"], heard["data"]["status"]) == ("anna", "away", "away")
                for each in (anna, bert, carl):
                    await each.hears_nothing()


async def test_rooms_ask_for_rights() -> None:  # S1-17
    rights = {"project:1": ["sub"]}
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine:
            headers = {"Authorization": f"Bearer {token('anna', channels=rights)}"}
            async with person(engine, **headers) as anna:
                denied = await anna.ask({"type": "join_room", "room_id": "2"})
                assert (denied["type"], denied["message"]) == ("error", "Channel access denied")
                assert (await anna.ask({"type": "join_room", "room_id": "1"}))["type"] == "session_joined"
                denied = await anna.ask({"type": "typing", "room_id": "1"})
                assert denied["message"] == "Channel access denied"


async def test_a_client_may_say_who_it_is_where_tokens_do_not_count() -> None:  # S1-29, S3-01
    with trio.fail_after(10):
        async with running_engine() as engine, person(engine) as client:
            answer = await client.ask({"type": "connect", "user_id": 7, "username": "Anna"})
            assert (answer["type"], answer["user_id"]) == ("connection_established", 7)
            await engine.bus.store("user:7", b'{"v":1,"e":"notification","d":{}}')
            assert (await client.json())["channel"] == "user:7"
            assert (await client.ask({"type": "connect", "user_id": "8"}))["type"] == "error"


async def test_where_tokens_count_nobody_is_believed_a_name() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine:
            headers = {"Authorization": f"Bearer {token('anna')}"}
            async with person(engine, **headers) as anna:
                assert (await anna.ask({"type": "connect", "user_id": "anna"}))["type"] == "connection_established"
                assert (await anna.ask({"type": "connect", "user_id": "bert"}))["type"] == "error"


async def test_v1_clients_have_no_such_command() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            answer = await client.ask({"v": 1, "t": "talk", "i": "1", "e": "connect", "d": "anna"})
            assert answer["d"]["code"] == "unknown_type"


async def test_a_client_that_says_who_it_is_is_on_its_channels_under_that_name() -> None:
    settings = EngineSettings(namespaces={"room": Namespace(presence=True)})
    with trio.fail_after(10):
        async with (
            running_engine(settings) as engine,
            connect(engine.host, engine.port, None) as plain,
            connect(engine.host, engine.port) as other,
        ):
            await plain.ask({"type": "subscribe", "channel": "room:1"})
            await plain.ask({"type": "connect", "user_id": "ann"})
            users: list[str] = []
            while users != ["ann"]:
                answer = await other.ask({"v": 1, "t": "presence", "c": "room:1", "i": "1"})
                users = [user["user_id"] for user in answer["d"].get("users", ())]
