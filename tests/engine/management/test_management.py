"""What a worker answers when the control process asks: what it holds, and nothing that is not addressed to it."""

import time
from copy import copy
from datetime import datetime
from typing import Any

import msgspec
import pytest
import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.management import connections, management, names, statistics
from fanline.engine.management.statistics import CHUNK, WorkerStatistics
from fanline.engine.presence.online import count_users
from fanline.protocol.management.answers import ConnectionInfo, ConnectionsPage, CountedNames
from fanline.protocol.management.questions import (
    SUBJECT,
    Answered,
    ChannelPresenceQuestion,
    ChannelsQuestion,
    ConnectionQuestion,
    ConnectionsQuestion,
    HistoryQuestion,
    ManagementQuestion,
    SendQuestion,
    StatisticsQuestion,
    TaskQuestion,
    UsersQuestion,
    decode_answered,
    encode_question,
)
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import connect, connect_raw


async def answered(bus: Bus, question: ManagementQuestion, count: int = 1) -> list[Answered]:
    answers = await bus.ask_all(SUBJECT, encode_question(question), 0.5, count)
    return [each for each in map(decode_answered, answers) if each is not None]


async def ask(engine: RunningEngine, question: ManagementQuestion, kind: Any) -> Any:
    """The one worker's answer."""
    while True:  # it answers from soon after its start on
        for answer in await answered(engine.bus, question):
            assert not answer.code, answer.message
            return msgspec.json.decode(answer.body, type=kind)


async def refusal(engine: RunningEngine, question: ManagementQuestion) -> str:
    await ask(engine, StatisticsQuestion(), WorkerStatistics)
    (answer,) = await answered(engine.bus, question)
    return answer.code


def crowd(engine: RunningEngine, count: int) -> None:
    """Have the worker list its one connection so many times more, each time as that of another user."""
    registry = engine.server._basis.registry
    (connection,) = registry
    for number in range(1, count + 1):
        clone, session = copy(connection), copy(connection.session)
        session.number += number
        session.identity = msgspec.structs.replace(session.identity, user=f"user-{number}")
        clone.session = session
        registry._slice_of(session.number)[session.number] = clone


def disperse(engine: RunningEngine) -> None:
    """Forget them."""
    registry = engine.server._basis.registry
    first = min(connection.session.number for connection in registry)
    for members in registry._slices:
        for number in [number for number in members if number != first]:
            del members[number]


@pytest.mark.parametrize(
    "question",
    [
        StatisticsQuestion(),
        ConnectionsQuestion(limit=500),
        ConnectionsQuestion(user="user-4999"),
        UsersQuestion(limit=500),
    ],
    ids=lambda question: type(question).__name__,
)
async def test_a_look_at_many_connections_gives_way_to_messages(
    question: ManagementQuestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, turns = 5000, 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with trio.fail_after(30):
        async with running_engine() as engine, connect(engine.host, engine.port):
            await ask(engine, StatisticsQuestion(), WorkerStatistics)
            crowd(engine, many)
            for module in (statistics, connections, names, management):
                monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                await ask(engine, question, dict)
                nursery.cancel_scope.cancel()
            disperse(engine)
            assert turns > many / CHUNK / 2


async def test_the_metadata_of_a_connection_is_what_its_token_says() -> None:  # S4-16
    shown = token(username="Anna", roles=["editor", "user"], organization_id="org-7")
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(Authorization=f"Bearer {shown}")
            connection = (await client.json())["d"]["connection"]
            info: ConnectionInfo = await ask(engine, ConnectionQuestion(connection=connection), ConnectionInfo)
            assert msgspec.to_builtins(info.metadata) == {
                "username": "Anna",
                "role": "editor",
                "roles": ["editor", "user"],
                "organization_id": "org-7",
            }


async def test_a_connection_is_described() -> None:  # S2-14, S2-15, S2-16, S2-17, S4-14, S4-15, S4-76
    with trio.fail_after(10):
        async with running_engine() as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(User_Agent="curl/8", path="/ws?project_id=7")
            client.connection = (await client.json())["d"]["connection"]
            before = time.time()
            assert (await client.ask({"t": "sub", "c": "news:all", "i": "1"}))["t"] == "ok"
            info: ConnectionInfo = await ask(engine, ConnectionQuestion(connection=client.connection), ConnectionInfo)
            assert info.connection_id == client.connection
            assert (info.route, info.dialect, info.client_address) == ("/ws", "json", "127.0.0.1")
            assert (info.user_agent, info.project_id, info.is_alive) == ("curl/8", "7", True)
            assert "news:all" in info.subscriptions
            assert info.subscription_count == len(info.subscriptions)
            assert (info.last_ping, info.last_pong, info.queue_bytes) == (None, None, 0)
            assert abs(datetime.fromisoformat(info.connected_at).timestamp() - before) < 10


async def test_nobody_but_its_worker_knows_a_connection() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            for name in ("", "x", "abc-1", "-", "abc-zz"):
                assert await ask(engine, ConnectionQuestion(connection=name), ConnectionInfo | None) is None


async def test_connections_come_in_pages_and_by_what_they_are() -> None:
    with trio.fail_after(20):
        async with running_engine() as engine:
            async with connect(engine.host, engine.port) as one, connect(engine.host, engine.port) as other:
                await one.ask({"t": "sub", "c": "news:all", "i": "1"})
                first = await ask(engine, ConnectionsQuestion(limit=1), ConnectionsPage)
                assert ([each.connection_id for each in first.items], first.total, first.more) == (
                    [one.connection],
                    2,
                    True,
                )
                rest = await ask(engine, ConnectionsQuestion(after=one.connection), ConnectionsPage)
                assert ([each.connection_id for each in rest.items], rest.more) == ([other.connection], False)
                for wanted, found in (
                    (ConnectionsQuestion(channel="news:all"), 1),
                    (ConnectionsQuestion(channel="news:none"), 0),
                    (ConnectionsQuestion(user="anna"), 0),
                    (ConnectionsQuestion(route="/ws"), 2),
                    (ConnectionsQuestion(route="/ws/chat"), 0),
                    (ConnectionsQuestion(after="zzz-1"), 2),
                ):
                    assert (await ask(engine, wanted, ConnectionsPage)).total == found


async def test_what_is_counted_is_told() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            for channel in ("news:all", "session:1"):
                await client.ask({"t": "sub", "c": channel, "i": "1"})
            told = await ask(engine, StatisticsQuestion(), WorkerStatistics)
            assert (told.users.connections, told.users.anonymous, told.session_connections) == (1, 1, 1)
            assert (count_users([told.channels]), count_users([told.sessions])) == (2, 1)
            assert (told.counters.opened, told.counters.connections, told.counters.commands) == (1, 1, 2)
            names = await ask(engine, ChannelsQuestion(prefix="news:"), CountedNames)
            assert names.items == [("news:all", 1)]
            assert (await ask(engine, UsersQuestion(), CountedNames)).items == []


async def test_a_question_to_another_worker_or_server_is_left_alone() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            told = await ask(engine, StatisticsQuestion(), WorkerStatistics)
            assert await answered(engine.bus, StatisticsQuestion(to="another")) == []
            assert len(await answered(engine.bus, StatisticsQuestion(to=told.server))) == 1
            assert await engine.bus.ask_all(SUBJECT, b"nonsense", 0.2, 1) == []


async def test_something_is_sent_to_one_connection() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            async with (
                connect(engine.host, engine.port) as one,
                connect(engine.host, engine.port) as other,
                connect(engine.host, engine.port, None) as plain,
            ):
                assert await ask(engine, SendQuestion(connection=one.connection, event="hello", data={"a": 1}), bool)
                said = await one.json()
                assert (said["t"], said["e"], said["d"]) == ("pub", "hello", {"a": 1})
                assert await ask(engine, SendQuestion(connection=plain.connection, event="hello", data={"a": 1}), bool)
                said = await plain.json()
                assert (said["type"], said["data"]) == ("hello", {"a": 1})
                assert (await other.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            assert not await ask(engine, SendQuestion(connection=one.connection, event="hello"), bool)


async def test_what_cannot_be_answered_is_refused_with_a_code() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            assert await refusal(engine, ChannelPresenceQuestion(channel="news:all")) == "not_supported"
            assert await refusal(engine, ChannelPresenceQuestion(channel="nothing")) == "bad_channel"
            assert await refusal(engine, HistoryQuestion(channel="news:all")) == "not_supported"
            assert await refusal(engine, TaskQuestion(channel="news:all")) == "not_supported"
            assert await refusal(engine, TaskQuestion(channel="task:never")) == "unknown_task"
