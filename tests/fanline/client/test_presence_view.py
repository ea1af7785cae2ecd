"""The SDK's view of who is on a channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import PresenceData, PresentUser
from tests.engine.access.clients import token
from tests.engine.presence.users import RIGHTS, running_cluster
from tests.engine.running import RunningEngine
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds


def client_of(engine: RunningEngine, user: str, **rights: list[str]) -> fanline.Client:
    shown = token(user, username=user.upper(), channels={"room:*": rights.get("room", RIGHTS["*"])})
    return fanline.Client(f"ws://{engine.host}:{engine.port}/ws", token=shown)


async def test_a_view_begins_with_those_who_are_there_and_follows_joins_and_leaves() -> None:
    with trio.fail_after(20):
        async with running_cluster(1) as [engine], client_of(engine, "ann") as ann, client_of(engine, "bob") as bob:
            async with ann.watch_presence("room:1") as room:
                while "ann" not in room.users:
                    await room.__anext__()
                async with bob.subscribe("room:1"):
                    notice = await room.__anext__()
                    assert (notice.kind, notice.user, notice.count) == ("join", PresentUser("bob", "BOB"), 2)
                    assert sorted(room.users) == ["ann", "bob"]
                notice = await room.__anext__()
                assert (notice.kind, notice.count, sorted(room.users)) == ("leave", 1, ["ann"])
            while (await bob.presence("room:1")).count:  # the view has unsubscribed
                await trio.sleep(0.02)


async def test_a_query_answers_who_is_on_a_channel_and_without_the_right_it_is_refused() -> None:
    with trio.fail_after(20):
        async with running_cluster(1) as [engine], client_of(engine, "ann") as ann:
            async with ann.subscribe("room:1"):
                while not (found := await ann.presence("room:1")).count:
                    await trio.sleep(0.02)
                assert found == PresenceData(1, 1, users=[PresentUser("ann", "ANN", 1)])
            async with client_of(engine, "bob", room=["sub"]) as bob:
                with pytest.raises(fanline.ServerError, match="no right to presence"):
                    await bob.presence("room:1")
                with pytest.raises(fanline.ServerError, match="no right to presence"):
                    async with bob.watch_presence("room:1"):
                        pass


def listed(*names: str) -> dict[str, object]:
    return PresenceData(len(names), len(names), users=[PresentUser(name) for name in names]).fields()


async def answer(talk: Talk, *names: str) -> None:
    """Subscribe, ask for notices, ask who is there: as a view does on each connection."""
    await talk.accept(MessageType.SUB)
    notices = await talk.accept(MessageType.SUB)
    assert notices.value == {"presence": True}
    query = await talk.receive()
    assert query.type == MessageType.PRESENCE
    await talk.send(Envelope(MessageType.OK, id=query.id, channel="room:1", data=listed(*names)))


async def say(talk: Talk, kind: MessageType, name: str) -> None:
    await talk.send(Envelope(kind, channel="room:1", sender=name, data=PresentUser(name).fields()))


@asynccontextmanager
async def viewing(url: str) -> AsyncIterator[fanline.PresenceView]:
    async with fanline.Client(url) as client, client.watch_presence("room:1") as room:
        yield room


async def told(room: fanline.PresenceView, count: int) -> list[tuple[str, str | None]]:
    notices = [await room.__anext__() for _ in range(count)]
    return [(notice.kind, None if notice.user is None else notice.user.user_id) for notice in notices]


async def test_what_is_known_already_is_no_news() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await answer(talk, "ann")
        for kind, name in ((MessageType.JOIN, "ann"), (MessageType.LEAVE, "bob"), (MessageType.JOIN, "bob")):
            await say(talk, kind, name)
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, viewing(url) as room:
            assert await told(room, 1) == [("join", "bob")]
            assert list(room.users) == ["ann", "bob"]


async def test_after_a_reconnect_what_has_changed_comes_as_notices() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await answer(talk, *(["ann", "cid"] if talk.number else ["ann", "bob"]))
        if talk.number:
            await say(talk, MessageType.LEAVE, "ann")
            await talk.until_closed()
        await talk.close(1012)

    with trio.fail_after(20):
        async with running_peer(script) as url, viewing(url) as room:
            assert await told(room, 3) == [("leave", "bob"), ("join", "cid"), ("leave", "ann")]
            assert list(room.users) == ["cid"]


async def test_of_a_large_channel_there_are_counts_until_it_is_small_again() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await answer(talk, "ann")
        for data in (PresenceData(2000, 2001).fields(), listed("bob", "cid")):
            await talk.send(Envelope(MessageType.PRESENCE, channel="room:1", data=data))
        await say(talk, MessageType.LEAVE, "cid")
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, viewing(url) as room:
            notices = [await room.__anext__() for _ in range(3)]
            assert [(notice.kind, notice.count) for notice in notices] == [
                ("counts", 2000),
                ("counts", 2),
                ("leave", 1),
            ]
            assert (room.large, list(room.users)) == (False, ["bob"])


async def test_a_view_whose_right_is_taken_away_ends_with_the_reason() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await answer(talk, "ann")
        data = {"code": "permission_denied", "message": "no more"}
        await talk.send(Envelope(MessageType.ERR, channel="room:1", data=data))
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, viewing(url) as room:
            with pytest.raises(fanline.ServerError, match="no more"):
                await room.__anext__()


async def test_notices_that_nobody_takes_end_the_view() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await answer(talk)
        for number in range(40):
            await say(talk, MessageType.JOIN, f"user-{number}")
        await talk.until_closed()

    with trio.fail_after(10):
        async with (
            running_peer(script) as url,
            fanline.Client(url) as client,
            client.watch_presence("room:1", buffer=1) as room,
        ):
            while len(room.users) < 40:
                await trio.sleep(0.01)
            assert len(await told(room, 16)) == 16
            with pytest.raises(fanline.SlowConsumer):
                await room.__anext__()
