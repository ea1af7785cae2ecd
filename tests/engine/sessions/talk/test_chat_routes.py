"""The routes of a chat: who gets in, what is looked at first, and what a client hears before all else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import trio

from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import person
from tests.support.raw_client import connect_raw, upgrade_request

_TALK = ["sub", "pub"]


@asynccontextmanager
async def serving() -> AsyncIterator[RunningEngine]:
    with trio.fail_after(20):
        async with running_engine(access=token_access()) as engine:
            yield engine


def bearer(user: str, *sessions: str, **claims: Any) -> dict[str, str]:
    """A token with the right to talk in these sessions."""
    channels = {f"session:{session}": _TALK for session in sessions}
    return {"Authorization": f"Bearer {token(user, channels=channels, **claims)}"}


async def refusal(engine: RunningEngine, path: str, **headers: str) -> tuple[int, str]:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(upgrade_request(path, subprotocol=None, **headers))
        status, _, body = await client.read_http()
        return status, msgspec.json.decode(body)["message"]


async def test_a_client_of_the_whole_chat_changes_its_session() -> None:  # S4-01, S4-05, S4-18
    async with serving() as engine:
        async with (
            person(engine, path="/ws/chat", **bearer("anna", "1", "2")) as anna,
            person(engine, path="/ws/chat/session/1", **bearer("bert", "1")) as first,
            person(engine, path="/ws/chat/session/2", **bearer("carl", "2")) as second,
        ):
            for session, kind, told in (
                ("1", "join_room", "session_joined"),
                ("1", "leave_room", "session_left"),
                ("2", "join_room", "session_joined"),
            ):
                answer = await anna.ask({"type": kind, "room_id": session})
                assert (answer["type"], answer["channel"]) == (told, f"session:{session}")
                assert (await (first if session == "1" else second).hear(told))["user_id"] == "anna"
            for number, client in ((1, first), (2, second)):
                await client.say({"type": "new_message", "session_id": number, "data": {"in": number}})
                assert (await client.hear("message_status_update"))["status"] == "sent"
            assert (await anna.hear("new_message"))["data"] == {"in": 2}  # and nothing of the session that it has left
            denied = await anna.ask({"type": "join_room", "room_id": "3"})
            assert (denied["type"], denied["message"]) == ("error", "Channel access denied")


async def test_the_token_is_looked_at_first_then_the_right_to_the_session_and_then_the_number() -> None:
    # S4-04, S4-05, S4-07, S4-77
    session = "/ws/chat/session/1"
    async with serving() as engine, AsyncExitStack() as stack:
        assert await refusal(engine, session) == (401, "Authentication required")
        assert await refusal(engine, session, Authorization="Bearer rubbish") == (401, "Invalid token")
        for path in (session, "/ws/chat", session, "/ws/chat", session):
            await stack.enter_async_context(person(engine, path=path, **bearer("anna", "1")))
        assert await refusal(engine, session, **bearer("anna", "2")) == (403, "Session access denied")
        for path in (session, "/ws/chat"):
            status, message = await refusal(engine, path, **bearer("anna", "1"))
            assert (status, "5 connections" in message) == (429, True)


async def test_a_client_is_confirmed_then_gets_what_came_while_it_was_away_then_its_peers_are_told() -> None:
    # S4-18, S4-77, S4-89
    session = "/ws/chat/session/1"
    async with serving() as engine, person(engine, path=session, **bearer("bert", "1")) as bert:
        for number in range(3):
            await engine.bus.store("user:anna", b'{"v":1,"e":"news","d":{"n":%d}}' % number)
        async with connect_raw(engine.host, engine.port) as client:
            await client.upgrade(None, session, **bearer("anna", "1", username="Anna"))
            heard = [await client.json() for _ in range(4)]
            assert [each["type"] for each in heard] == ["connection_established", "news", "news", "news"]
            assert [each["data"]["n"] for each in heard[1:]] == [0, 1, 2]
            assert heard[0]["connection_id"]
            assert (await bert.hear("session_joined"))["user"] == {"user_id": "anna", "username": "Anna"}
            assert (await client.ask({"type": "ping", "timestamp": 7}))["timestamp"] == 7  # S4-17


async def test_what_a_client_says_is_dealt_with_by_its_type() -> None:  # S4-13, S4-17
    async with serving() as engine, person(engine, path="/ws/chat", **bearer("anna", "1")) as anna:
        for said, answered in (
            ({"type": "ping"}, "pong"),
            ({"type": "join_room", "room_id": "1"}, "session_joined"),
            ({"type": "new_message", "session_id": "1", "data": {}}, "message_status_update"),
            ({"type": "leave_room", "room_id": "1"}, "session_left"),
        ):
            assert (await anna.ask(said))["type"] == answered
        for silent in ("pong", "typing"):
            await anna.say({"type": silent, "session_id": "1"})
            await anna.hears_nothing()
        for wrong, message in (
            ({"type": "dance"}, "Unknown message type: dance"),
            ({"text": "hello"}, "Missing message type"),
            ("hello", "Invalid JSON format"),
        ):
            await anna.say(wrong)
            assert (await anna.hear("error"))["message"] == message
