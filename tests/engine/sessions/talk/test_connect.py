"""`connect`: who says it, where, and who decides whether it is believed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.engine.bus.memory import MemoryBroker
from fanline.engine.routes import Route
from fanline.engine.settings import EngineSettings
from fanline.protocol.handlers import AuthenticateAnswer, AuthenticateRequest, ClientIdentity
from tests.engine.access.application.answering import Answering, Request, answering, client_of
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, person

NAME = "app:authenticate"
OPEN_DOOR = Route(anonymous=("doc:*:sub",), joins=("user:{user}",))
"""A route by which clients come in without a token."""


@asynccontextmanager
async def at_the_door(
    access: Access, broker: MemoryBroker | None = None
) -> AsyncIterator[tuple[RunningEngine, Person]]:
    """A client without a token that may come in, in token mode."""
    settings = EngineSettings(routes={"/door": OPEN_DOOR})
    with trio.fail_after(20):
        async with running_engine(settings, access=access, broker=broker) as engine:
            async with person(engine, path="/door") as client:
                yield engine, client


async def subscribes(client: Person, channel: str) -> bool:
    return bool((await client.ask({"type": "subscribe", "channel": channel}))["type"] == "subscription_result")


# --- by a token -----------------------------------------------------------------------------------------------------


async def test_a_first_message_may_have_the_token_on_an_anonymous_route_alone() -> None:
    async with at_the_door(token_access()) as (engine, client):
        await engine.bus.store("user:anna", b'{"v":1,"e":"notification","d":{}}')
        assert await subscribes(client, "doc:1")
        assert not await subscribes(client, "task:1")
        await client.say({"type": "connect", "token": token("anna", username="Anna", channels={"task:*": ["sub"]})})
        assert await client.hear("unsubscribed")  # the token has no right to doc:1
        established = await client.hear("connection_established")
        assert established["user_id"] == "anna"
        assert (await client.hear("notification"))["channel"] == "user:anna"
        assert await subscribes(client, "task:1")
        assert (await client.ask({"type": "connect", "user_id": "bert"}))["type"] == "error"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"user_id": "anna"}, "Authentication required"),
        ({"user_id": "anna", "token": ""}, "Authentication required"),
        ({"user_id": "anna", "token": 7}, "Authentication required"),
        ({"token": "rubbish"}, ""),
        ({"user_id": "anna", "token": token("bert", ends_in=3600)}, "this token belongs to another user"),
        ({"token": token("anna", ends_in=-600)}, ""),
        ({}, "User id required"),
    ],
)
async def test_who_is_not_believed_stays_nobody_in_particular(said: dict[str, Any], why: str) -> None:
    async with at_the_door(token_access()) as (_, client):
        answer = await client.ask({"type": "connect", **said})
        assert answer["type"] == "error"
        assert why in answer["message"]
        assert await subscribes(client, "doc:1")
        assert not await subscribes(client, "user:anna")


async def test_a_token_counts_as_the_name_it_has_where_everybody_gets_in_and_keys_are_there() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access(mode=AuthMode.OPEN)) as engine:
            async with person(engine) as client:
                answer = await client.ask({"type": "connect", "user_id": "anna", "token": token("anna")})
                assert answer["user_id"] == "anna"
            async with person(engine) as client:
                assert (await client.ask({"type": "connect", "user_id": 7, "token": token("8")}))["type"] == "error"
                assert (await client.ask({"type": "connect", "user_id": 7}))["user_id"] == 7
        async with running_engine() as engine, person(engine) as client:  # without keys it is not looked at
            assert (await client.ask({"type": "connect", "token": "x"}))["message"] == "User id required"
            assert (await client.ask({"type": "connect", "user_id": "anna", "token": "x"}))["user_id"] == "anna"


# --- by an authenticator --------------------------------------------------------------------------------------------


def believes_anna(request: Request) -> AuthenticateAnswer:
    """Lets everybody in, and knows Anna by the name that she says."""
    assert isinstance(request, AuthenticateRequest)
    if request.user is None:
        return AuthenticateAnswer(allow=True, identity=ClientIdentity(channels={"doc:*": ("sub",)}))
    if request.user != "a.meyer":
        return AuthenticateAnswer(allow=False, reason="never heard of you")
    return AuthenticateAnswer(allow=True, identity=ClientIdentity(user="anna", username=request.username))


def access_by(answers: Answering, mode: AuthMode = AuthMode.TOKEN) -> Access:
    return Access(mode, TokenSettings(), AccessSettings(authenticator=NAME), None, client_of(answers))


@pytest.mark.parametrize("mode", list(AuthMode))
async def test_an_authenticator_decides_whether_to_believe_a_name_in_every_mode(mode: AuthMode) -> None:
    answers = await answering(NAME, believes_anna)
    async with at_the_door(access_by(answers, mode), answers.broker) as (engine, client):
        refused = await client.ask({"type": "connect", "user_id": "b.mann"})
        assert (refused["type"], refused["message"]) == ("error", "never heard of you")
        await engine.bus.store("user:anna", b'{"v":1,"e":"notification","d":{}}')
        answer = await client.ask({"type": "connect", "user_id": "a.meyer", "username": "Anna", "token": "t"})
        assert (answer["type"], answer["user_id"]) == ("connection_established", "anna")
        assert (await client.hear("notification"))["channel"] == "user:anna"
        assert not await subscribes(client, "doc:1")
    asked = [each for each in answers.asked if isinstance(each, AuthenticateRequest)]
    assert [(each.user, each.username, each.token, each.path) for each in asked] == [
        (None, None, None, "/door"),
        ("b.mann", None, None, "/door"),
        ("a.meyer", "Anna", "t", "/door"),
    ]


async def test_who_is_not_believed_because_nobody_answers_may_try_again() -> None:
    answers = await answering(NAME, believes_anna)
    async with at_the_door(access_by(answers), answers.broker) as (_, client):
        await answers.stop()
        refused = await client.ask({"type": "connect", "user_id": "a.meyer"})
        assert refused["message"] == "clients cannot be authenticated now; try again later"
        await answers.start()
        assert (await client.ask({"type": "connect", "user_id": "a.meyer"}))["user_id"] == "anna"
