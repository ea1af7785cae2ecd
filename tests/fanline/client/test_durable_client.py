"""Durable channels in the client: whatever happens, each subscription gets its exact sequence, or an explicit gap."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import trio

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason
from fanline.protocol.messages.answers import PublishResult
from tests.fanline.client.durable_peer import CHANNEL, Entry, durable_peer, take_data
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

pytestmark = pytest.mark.usefixtures("hurry")


async def test_after_a_reconnect_it_continues_where_it_was_by_offset_and_epoch() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL) as messages:
                await peer.publish("one")
                assert await take_data(messages, 1) == ["one"]
                await peer.cut()
                peer.append("two")
                assert await take_data(messages, 1) == ["two"]
            assert (peer.asked[1].offset, peer.asked[1].epoch) == (peer.log[0].offset, "one")


async def test_a_hole_is_asked_for_and_nothing_after_it_is_handed_out_before() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL) as messages:
                await peer.publish(0)
                assert await take_data(messages, 1) == [0]
                peer.append(1)
                peer.append(2)
                await peer.publish(3)
                assert await take_data(messages, 3) == [1, 2, 3]
    assert [command.offset for command in peer.asked] == [None, peer.log[0].offset]


async def test_a_message_has_its_position_and_a_stored_position_continues_right_there() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            for number in range(5):
                peer.append(number)
            async with client.subscribe(CHANNEL, start=True) as messages:
                assert messages.positions == {}
                message = await anext(messages)
                assert (message.offset, message.previous, message.epoch) == (peer.log[0].offset, 0, "one")
                await anext(messages)
                stored = messages.positions
                assert messages.recovered
            assert stored == {CHANNEL: (peer.log[1].offset, "one")}
            as_json = {channel: list(place) for channel, place in stored.items()}
            async with client.subscribe(CHANNEL, positions=as_json) as messages:
                assert messages.positions == stored
                assert await take_data(messages, 3) == [2, 3, 4]


async def test_what_is_gone_for_good_is_an_item_where_it_belongs_if_gaps_are_asked_for() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL, gaps=True) as messages:
                await peer.publish(0)
                last = peer.last
                await peer.gap(last + 1, last + 9, "expired")
                peer.log.append(Entry(last + 9, last, "lost"))
                await peer.publish(1)
                assert await take_data(messages, 1) == [0]
                gap = await anext(messages)
                assert gap == fanline.Gap(CHANNEL, "expired", last + 1, last + 9, "one")
                assert messages.positions == {CHANNEL: (last + 9, "one")}
                assert await take_data(messages, 1) == [1]


async def test_without_asking_for_gaps_a_loss_is_a_warning_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(5), caplog.at_level(logging.WARNING, "fanline"):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL) as messages:
                await peer.gap(1, 9, "expired")
                peer.log.append(Entry(9, 0, "lost"))
                await peer.publish(1)
                assert await take_data(messages, 1) == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "the messages from 1 to 9 of task:1 are missing (expired)"
    ]


async def test_a_channel_that_was_recreated_while_we_were_away_is_reported_and_then_given_whole() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL, gaps=True) as messages:
                for number in range(5):
                    await peer.publish(number)
                await take_data(messages, 5)
                peer.epoch, peer.log = "two", []
                for number in (100, 101):
                    peer.append(number)
                await peer.cut()
                assert await anext(messages) == fanline.Gap(CHANNEL, "epoch", None, 0, "two")
                assert await take_data(messages, 2) == [100, 101]
                await peer.publish(102)
                assert await take_data(messages, 1) == [102]
                assert messages.positions == {CHANNEL: (peer.last, "two")}


async def test_a_channel_that_is_recreated_while_we_are_connected_is_reported() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.subscribe(CHANNEL, gaps=True) as messages:
                await peer.publish(0)
                peer.epoch, peer.log = "two", []
                await peer.gap(0, 0, "epoch")
                await peer.publish(1)
                assert await take_data(messages, 1) == [0]
                assert await anext(messages) == fanline.Gap(CHANNEL, "epoch", None, 0, "two")
                assert await take_data(messages, 1) == [1]


async def test_a_position_in_a_former_life_is_reported_and_not_taken_for_one_in_this() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            peer.append(0)
            async with client.subscribe(CHANNEL, gaps=True, positions={CHANNEL: (999, "zero")}) as messages:
                assert not messages.recovered
                assert await anext(messages) == fanline.Gap(CHANNEL, "epoch", None, 0, "one")
                assert await take_data(messages, 1) == [0]


async def test_a_server_that_cannot_explain_a_hole_is_asked_twice_and_then_it_is_a_gap() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await _answer(talk, 5)
        await _send(talk, 9, 8)
        assert (await _answer(talk, 5)).offset == 5
        await _send(talk, 9, 8)
        assert (await _answer(talk, 5)).offset == 5
        await _send(talk, 9, 8)
        await _send(talk, 10, 9)
        await talk.until_closed()

    assert await _items(script, 3) == [fanline.Gap(CHANNEL, "unexplained", 6, 8, "one"), 9, 10]


async def test_an_urgent_message_that_overtakes_others_is_handed_out_where_it_belongs() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await _answer(talk, 5)
        await _send(talk, 8, 7)
        await _send(talk, 6, 8)  # the server has made it follow on what it sent
        await _send(talk, 7, 6)
        assert (await _answer(talk, 8, count=3)).offset == 5
        for offset in (6, 7, 8):
            await _send(talk, offset, offset - 1)
        await talk.until_closed()

    assert await _items(script, 3) == [6, 7, 8]


async def test_while_the_bus_is_away_a_resume_is_asked_again_and_commands_are_not_held_up() -> None:
    lost, published = trio.Event(), trio.Event()

    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await _answer(talk, 5)
            await talk.close(CloseReason.RESTART.code)
            lost.set()
            return
        while not published.is_set():
            command = await talk.receive()
            if command.type == MessageType.PUB:
                published.set()
            refusal = {"code": "unavailable", "message": "the bus is away"}
            await talk.send(Envelope(MessageType.ERR, id=command.id, data=refusal))
        await _answer(talk, 6, count=1)
        await _send(talk, 6, 5)
        await talk.until_closed()

    async def act(client: fanline.Client) -> None:
        await lost.wait()
        with pytest.raises(fanline.ServerError, match="the bus is away"):
            await client.publish("task:2", 1)

    assert await _items(script, 1, act) == [6]


async def test_a_refused_start_position_raises_on_entering_and_costs_the_others_nothing() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await _answer(talk, 5)
        await talk.refuse("bad_offset")  # a refused `sub` has done nothing: the channel is still live
        await _send(talk, 6, 5)
        asked.append((await talk.receive()).type)

    async def act(client: fanline.Client) -> None:
        with pytest.raises(fanline.ServerError) as caught:
            async with client.subscribe(CHANNEL, positions={CHANNEL: (99, "one")}):
                pass
        assert caught.value.code == "bad_offset"

    asked: list[str] = []
    assert await _items(script, 1, act) == [6]
    assert asked == [MessageType.UNSUB]


async def test_a_hole_that_the_server_cannot_fill_for_now_is_asked_for_again_while_the_channel_stays_live() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await _answer(talk, 5)
        await _send(talk, 8, 7)
        await talk.refuse("unavailable")
        await _send(talk, 9, 8)
        assert (await _answer(talk, 9, count=4)).offset == 5
        for offset in (6, 7, 8, 9):
            await _send(talk, offset, offset - 1)
        await talk.until_closed()

    assert await _items(script, 4) == [6, 7, 8, 9]


async def test_a_history_that_was_cut_off_is_given_once_whatever_comes_for_others_in_between() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await _answer(talk, 5)
            assert (await _answer(talk, 5, count=2)).value == {"last": 2}
            await talk.close(CloseReason.RESTART.code)
            return
        for expected in (None, {"last": 2}):
            assert (await _answer(talk, 7, count=2)).value == expected
            await _send(talk, 6, 5)
            await _send(talk, 7, 6)
        await _send(talk, 8, 7)
        await talk.until_closed()

    async def act(client: fanline.Client) -> None:
        async with client.subscribe(CHANNEL, last=2) as newest:
            assert await take_data(newest, 3) == [6, 7, 8]

    assert await _items(script, 3, act) == [6, 7, 8]


async def test_a_channel_whose_history_is_still_to_come_is_unsubscribed_though_another_start_was_refused() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await _answer(talk, 5, count=1)
        await talk.refuse("bad_offset")
        await _send(talk, 5, 4)
        assert (await talk.receive()).type == MessageType.UNSUB
        unsubscribed.set()

    unsubscribed = trio.Event()
    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe(CHANNEL, last=1) as messages:
                with pytest.raises(fanline.ServerError):
                    async with client.subscribe(CHANNEL, positions={CHANNEL: (99, "one")}):
                        pass
                assert await take_data(messages, 1) == [5]
            await unsubscribed.wait()


async def test_a_publish_to_a_durable_channel_is_sent_again_with_its_deduplication_id_until_it_is_answered() -> None:
    seen: list[str | None] = []
    one, other = str(uuid4()), str(uuid4())

    async def script(talk: Talk) -> None:
        await talk.welcome()
        for number in range(2):
            command = await talk.receive()
            assert command.deduplication_id not in (None, command.id)
            seen.append(command.deduplication_id)
            if talk.number in (1, 2) and number == 0:
                await talk.close(CloseReason.RESTART.code)
                return
            result = PublishResult(f"made{len(seen)}", duplicate=talk.number > 0)
            answer = Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=7, data=result.fields())
            await talk.send(answer)
            if talk.number == 0:
                await talk.close(CloseReason.RESTART.code)
                return
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            assert await client.publish(CHANNEL, 1, deduplication_id=one) == fanline.Published("made1", 7)
            sent_again = await client.publish("task:2", 1, deduplication_id=other)
            assert sent_again == fanline.Published("made4", 7, duplicate=True)
            await client.publish("task:2", 1)
    assert seen[:4] == [one, other, other, other]
    assert len(set(seen)) == 3


async def test_a_publish_is_not_sent_again_when_the_server_may_have_forgotten_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        if talk.number == 0:
            answer = Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=7, data={"id": command.id})
            await talk.send(answer)
            await talk.receive()
            await talk.close(CloseReason.RESTART.code)

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            await client.publish(CHANNEL, 1)
            monkeypatch.setattr("fanline.client.machine.requests.STORED_SECONDS", -1)
            with pytest.raises(fanline.ConnectionLost, match="may have been done"):
                await client.publish(CHANNEL, 1)


def test_last_and_start_together_make_no_sense() -> None:
    with pytest.raises(ValueError, match="not both"):
        fanline.Client("ws://x/ws").subscribe(CHANNEL, last=1, start=True)


async def _items(
    script: Callable[[Talk], Awaitable[None]],
    count: int,
    act: Callable[[fanline.Client], Awaitable[None]] | None = None,
) -> list[Any]:
    """What a script makes a subscription with gaps yield: gaps, and the offsets of messages."""
    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe(CHANNEL, gaps=True) as messages:
                if act is not None:
                    await act(client)
                items = [await anext(messages) for _ in range(count)]
    return [item.offset if isinstance(item, fanline.Message) else item for item in items]


async def _answer(talk: Talk, offset: int, *, count: int = 0) -> Envelope:
    """Receive a `sub` and answer with the channel's position."""
    command = await talk.receive()
    assert command.type == MessageType.SUB, command
    data = {"recovered": True, "count": count}
    await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=offset, epoch="one", data=data))
    return command


async def _send(talk: Talk, offset: int, previous: int) -> None:
    await talk.send(Envelope(MessageType.PUB, channel=CHANNEL, offset=offset, previous=previous, data=offset))
