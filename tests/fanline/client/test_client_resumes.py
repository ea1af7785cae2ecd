"""What a client sends to resume its session, and what follows when the server knows it, or does not."""

import pytest
import trio

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason
from fanline.protocol.messages.answers import Subscribed
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

pytestmark = pytest.mark.usefixtures("hurry")


async def _first(talk: Talk) -> None:
    """The first connection: the client subscribes to two channels, gets a message of each, and loses it."""
    for offset in (5, None):
        command = await talk.receive()
        epoch = "one" if offset else None
        await talk.send(Envelope(MessageType.OK, id=command.id, channel=command.channel, offset=offset, epoch=epoch))
    await talk.send(Envelope(MessageType.PUB, channel="task:1", offset=7, previous=5, data="before"))
    await talk.publish("news:a", "before")
    await talk.close(CloseReason.RESTART.code)


async def _resumed(talk: Talk, session: str) -> None:
    wanted = await talk.resume()
    assert (wanted.session, wanted.positions) == (session, {"task:1": (7, "one")})
    answer = Subscribed(recovered=True, count=1).fields()
    await talk.send(Envelope(MessageType.OK, channel="task:1", offset=9, epoch="one", data=answer))
    await talk.send(Envelope(MessageType.PUB, channel="task:1", offset=9, previous=7, data="missed"))
    await talk.send(Envelope(MessageType.OK, channel="news:a"))
    await talk.end_resumption(talk.resuming)


async def test_one_command_brings_back_all_channels_and_each_later_loss_names_the_newer_session() -> None:
    async def script(talk: Talk) -> None:
        talk.forgets_sessions = False
        await talk.welcome()
        if talk.number == 0:
            await _first(talk)
        elif talk.number == 1:
            await _resumed(talk, "session-0")
            await talk.publish("news:a", "after")
            command = await talk.accept(MessageType.CALL)  # and no `sub` before it
            assert command.event == "verb"
            await talk.close(CloseReason.RESTART.code)
        else:
            wanted = await talk.resume()
            assert (wanted.session, wanted.positions["task:1"]) == ("session-1", (9, "one"))
            again.set()
            await talk.until_closed()

    again = trio.Event()
    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("task:1", gaps=True) as task, client.subscribe("news:a") as news:
                items = [await anext(task) for _ in range(2)]
                assert [item.data for item in items if isinstance(item, fanline.Message)] == ["before", "missed"]
                assert [(await anext(news)).data for _ in range(2)] == ["before", "after"]
                await client.call("task:1", "verb")
                await again.wait()


async def test_without_the_session_every_channel_is_subscribed_from_where_it_was() -> None:
    seen: list[tuple[str | None, int | None]] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()  # the peer forgets sessions
        if talk.number == 0:
            await _first(talk)
            return
        for _ in range(2):
            command = await talk.accept(MessageType.SUB)
            seen.append((command.channel, command.offset))
        await talk.publish("news:a", "after")
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("task:1"), client.subscribe("news:a") as news:
                assert [(await anext(news)).data for _ in range(2)] == ["before", "after"]
    assert sorted(seen, key=str) == [("news:a", None), ("task:1", 7)]


async def test_a_history_that_a_lost_connection_has_left_unanswered_is_asked_for_again() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        if talk.number == 0:
            await talk.close(CloseReason.RESTART.code)
            return
        page = {"messages": [Envelope(MessageType.PUB, channel="doc:1", offset=3, data="kept")], "more": False}
        await talk.send(Envelope(MessageType.OK, id=command.id, channel="doc:1", offset=3, epoch="one", data=page))
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            page = await client.history("doc:1")
            assert [message.data for message in page.messages] == ["kept"]
