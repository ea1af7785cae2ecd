"""The sales assistant (S4), from the token to the last notice: chats of customers and staff, each in a session, with
what an AI says of itself, notices for a user and for everybody, and at most five connections of a user.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from tests.engine.access.clients import SECRET, token
from tests.integration.systems.scene import (
    caught_up,
    come,
    coming,
    kept_out,
    publish,
    revoke,
    until_closed,
    until_in,
    url_of,
)
from tests.support.foreign.client import KINDS, Foreign, Retry, foreign
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.inbox import until_acknowledged
from tests.support.servers.serve import Serve, kill, running_serve

pytestmark = pytest.mark.parametrize("kind", KINDS)
SECONDS = 90
CHAT = "/ws/chat"
BACK_OFF = Retry((1.0, 2.0, 4.0, 8.0, 16.0))
"""The system says that its client comes back, and not how."""
SOON = BACK_OFF.faster(20)


@asynccontextmanager
async def office(workers: int = 2) -> AsyncIterator[tuple[Serve, NatsClient]]:
    """A server that wants tokens, and a backend of it."""
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    with trio.fail_after(SECONDS):
        async with running_serve(workers, env=env) as serve, connect_nats(serve.producer_url) as backend:
            yield serve, backend


def shown(path: str, user: str, *sessions: str, **claims: Any) -> str:
    """The path with a token of this user, who may talk in these sessions."""
    rights = {f"session:{session}": ["sub", "pub"] for session in sessions}
    return f"{path}?token={token(user, ends_in=600, username=user.title(), channels=rights, **claims)}"


async def refusal(kind: str, serve: Serve, path: str) -> int:
    """The status with which a client is refused that does not come back."""
    async with foreign(kind) as client:
        await client.open(url_of(serve, path))
        return int((await client.saw("refused"))["status"])


async def test_only_who_has_a_token_and_a_right_to_the_session_gets_in_and_five_times_at_most(kind: str) -> None:
    # S4-04, S4-05, S4-07, S4-77
    session = f"{CHAT}/session/9"
    async with office() as (serve, _), AsyncExitStack() as stack:
        assert await refusal(kind, serve, session) == 401
        assert await refusal(kind, serve, f"{session}?token=rubbish") == 401
        assert await refusal(kind, serve, shown(session, "anna", "10")) == 403
        path = shown(session, "anna", "9")
        everywhere = shown(CHAT, "anna", "9")
        paths = (path, everywhere, path, everywhere, path)  # the two routes of a chat count together
        clients = [await stack.enter_async_context(coming(kind, serve, each)) for each in paths]
        async with foreign(kind) as sixth:
            await sixth.open(url_of(serve, path), retry=SOON)
            for delay in SOON.delays:
                assert (await sixth.saw("refused"))["status"] == 429
                assert (await sixth.saw("retry"))["after"] == delay
            await sixth.saw("refused", "gave_up")
            await clients[0].close()
            await until_closed(clients[0])
            await sixth.open(url_of(serve, path), retry=Retry((0.1,) * 500))
            await until_in(sixth)


async def test_a_chat_from_the_first_word_to_the_last_over_two_workers(kind: str) -> None:
    # S4-01, S4-02, S4-17 to S4-24, S4-28, S4-29, S4-90
    session = f"{CHAT}/session/9"
    async with office() as (serve, backend):
        first, second = serve.worker_pids()
        async with (
            coming(kind, serve, shown(CHAT, "anna", "9", "10"), first) as anna,
            coming(kind, serve, shown(session, "bert", "9"), second) as bert,
        ):
            await anna.send({"type": "join_room", "room_id": "9"})
            await hear(anna, "session_joined", user_id="anna")
            assert (await hear(bert, "session_joined", user_id="anna"))["user"] == {
                "user_id": "anna",
                "username": "Anna",
            }

            await anna.send({"type": "typing", "session_id": "9", "is_typing": True})
            typing = await hear(bert, "typing")
            assert (typing["is_typing"], typing["user_id"]) == (True, "anna")
            await anna.send({"type": "new_message", "session_id": "9", "message_id": "a-1", "data": {"text": "hello"}})
            sent = await hear(anna, "message_status_update")
            assert (sent["status"], sent["client_message_id"]) == ("sent", "a-1")
            heard = await hear(bert, "new_message")
            assert (heard["data"], heard["message_id"], heard["session_id"]) == (
                {"text": "hello"},
                sent["message_id"],
                "9",
            )
            await bert.send({"type": "message_read", "message_id": heard["message_id"]})
            assert (await hear(anna, "message_status_update", status="read"))["user_id"] == "bert"

            await publish(backend, "session:9", "ai_processing_status", {"status": "thinking"})
            for client in (anna, bert):
                assert (await hear(client, "ai_processing_status"))["data"] == {"status": "thinking"}
            notice = {
                "title": "Quota",
                "message": "80 %",
                "type": "WARNING",
                "action_url": "/quota",
                "auto_close": True,
            }
            await publish(backend, "user:anna", "notification", notice)
            assert (await hear(anna, "notification"))["notification"].items() >= {**notice, "type": "warning"}.items()
            await publish(backend, "system:all", "system_maintenance_start", {"at": "noon"}, pr=8)
            for client in (anna, bert):
                assert (await hear(client, "system_maintenance_start"))["data"] == {"at": "noon"}
            await bert.send({"type": "user_status", "status": "away"})
            assert (await hear(anna, "user_status_update"))["status"] == "away"

            await anna.send({"type": "leave_room", "room_id": "9"})
            await hear(anna, "session_left")
            await hear(bert, "session_left", user_id="anna")
            await anna.send({"type": "join_room", "room_id": "10"})
            await hear(anna, "session_joined")
            await publish(backend, "session:9", "ai_processing_status", {"status": "done"})
            await hear(bert, "ai_processing_status")
            await anna.send({"type": "join_room", "room_id": "11"})
            assert (await hear(anna, "error"))["message"] == "Channel access denied"
            for client in (anna, bert):
                await answered(client)


async def answered(client: Foreign) -> None:
    """Its route has joined everything, and the client has heard nothing else."""
    await client.send({"type": "ping", "timestamp": 7})
    assert (await hear(client, "pong"))["timestamp"] == 7


async def hear(client: Foreign, kind: str, **fields: Any) -> dict[str, Any]:
    """The next message, which is of this type and has these fields. Until then the client may be told who comes and
    goes, for one that is to be on a certain worker has been there by the other one before; and what was delivered.
    """
    while True:
        message = await client.message()
        if message["type"] == kind and message.items() >= fields.items():
            return message
        assert message["type"] in ("session_joined", "session_left") or message["status"] == "delivered", message


async def test_what_comes_for_a_user_who_is_away_is_there_at_the_next_connect_and_never_twice(kind: str) -> None:
    # S4-30, S4-32, S4-89
    async with office() as (serve, backend), foreign(kind) as client:
        path = shown(CHAT, "anna")
        for number in range(3):
            for each in ("a", "b"):
                await publish(backend, "user:anna", "news", {"n": [number, each]})
            await come(client, serve, path)
            for each in ("a", "b"):
                assert (await client.heard("news"))["data"]["n"] == [number, each]
            last = await publish(backend, "user:anna", "news", {"n": [number, "live"]})
            assert (await client.heard("news"))["data"]["n"] == [number, "live"]
            await caught_up(client)
            await acknowledged(serve, last)
            await client.close()
            await until_closed(client)


async def acknowledged(serve: Serve, offset: int) -> None:
    """Anna's pong has told that she has everything up to there."""
    async with connect_nats(serve.engine_url) as store:
        await until_acknowledged(store, "user:anna", offset)


async def test_a_user_whose_tokens_are_taken_back_is_out_and_stays_out(kind: str) -> None:  # S4-04
    async with office() as (serve, _):
        first, second = serve.worker_pids()
        path = shown(CHAT, "anna")
        async with (
            coming(kind, serve, path, first, retry=SOON) as one,
            coming(kind, serve, path, second, retry=SOON) as other,
            coming(kind, serve, shown(CHAT, "bert"), second) as bert,
        ):
            await revoke(serve, "anna")
            for client in (one, other):
                await kept_out(client, SOON)
            await caught_up(bert)


async def test_a_session_goes_on_after_a_killed_worker_and_after_a_restart(kind: str) -> None:
    # S4-19, S4-32, S4-35
    session = f"{CHAT}/session/9"
    async with office() as (serve, backend), foreign(kind) as anna, foreign(kind) as bert:
        first, second = serve.worker_pids()
        await come(anna, serve, shown(session, "anna", "9"), first, retry=BACK_OFF)
        await come(bert, serve, shown(session, "bert", "9"), second, retry=BACK_OFF)
        await talk(anna, bert)
        await kill(first)
        assert await until_closed(anna) == 1006
        await publish(backend, "user:anna", "news", {"n": 1})
        await until_in(anna)
        last = await publish(backend, "user:anna", "news", {"n": 2})
        for number in (1, 2):
            assert (await hear(anna, "news"))["data"] == {"n": number}
        await talk(anna, bert)
        await acknowledged(serve, last)

        os.kill(serve.pid, signal.SIGTERM)
        for client in (anna, bert):
            assert await until_closed(client) == 1012
        await serve.start_again()
        for client in (anna, bert):
            await until_in(client)
        await talk(anna, bert)
        await bert.close()
        assert await until_closed(bert) == 1000
        await hear(anna, "session_left", user_id="bert")


async def talk(anna: Foreign, bert: Foreign) -> None:
    """They hear each other."""
    for each in (anna, bert):
        await answered(each)
    for speaker, hearer in ((anna, bert), (bert, anna)):
        await speaker.send({"type": "new_message", "session_id": "9", "data": {"text": "there?"}})
        await hear(speaker, "message_status_update", status="sent")
        assert (await hear(hearer, "new_message"))["data"] == {"text": "there?"}
