"""The client against a scripted server: what a real one does too rarely to wait for."""

import socket
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trio

import fanline
from fanline.client.machine.unread import OVERRUN
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason
from tests.fanline.client.peer import Talk, refusing_peer, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds


async def _echo(talk: Talk) -> None:
    """Welcome the client, and answer `ok` to everything."""
    await talk.welcome()
    await _answer_all(talk)


async def _answer_all(talk: Talk) -> None:
    while True:
        command = await talk.receive()
        kind = MessageType.PONG if command.type == MessageType.PING else MessageType.OK
        await talk.send(Envelope(kind, id=command.id, data={"id": command.id}))


async def test_a_message_reaches_its_subscriber_with_all_its_fields() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        await talk.send(
            Envelope(
                "pub",
                channel="news:all",
                data={"a": [1]},
                event="e",
                id="i",
                sender="u",
                time=5,
                offset=7,
                previous=3,
                extra={"task_id": "42"},
            )
        )
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:all") as messages:
                message = await anext(messages)
    assert message == fanline.Message("news:all", {"a": [1]}, "e", "i", "u", 5, 7, 3, x={"task_id": "42"})


async def test_what_is_for_the_others_names_the_connection_it_is_sent_on_also_after_a_reconnect() -> None:
    published: list[Envelope] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        published.append(await talk.accept("pub"))
        if talk.number == 0:
            await talk.close(1012)
        else:
            published.append(await talk.accept("pub"))
            await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            await client.publish("room:1", 1, to_others=True, x={"task_id": "42"})
            while len(published) < 2:
                with suppress(fanline.ConnectionLost):  # it may meet the end of the first connection
                    await client.publish("room:1", 2, to_others=True)
            await client.publish("room:1", 3)
    assert [each.excluded for each in published] == ["peer-0", "peer-1", None]
    assert [each.extra for each in published] == [{"task_id": "42"}, None, None]


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if not reason.reconnect])
async def test_a_close_that_forbids_a_reconnect_reaches_the_user_and_ends_the_client(reason: CloseReason) -> None:
    async def script(talk: Talk) -> None:
        assert talk.number == 0
        await talk.welcome()
        await talk.accept("sub")
        await talk.publish("news:all", 1)
        await talk.close(reason.code)

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:all") as messages:
                assert (await anext(messages)).data == 1
                with pytest.raises(fanline.ConnectionLost) as caught:
                    await anext(messages)
            assert (caught.value.code, caught.value.final) == (reason.code, True)
            with pytest.raises(fanline.ConnectionLost):
                await client.publish("news:all", 2)


async def test_after_a_loss_everything_is_subscribed_again_before_any_other_command() -> None:
    lost = trio.Event()
    seen: list[tuple[str, str | None]] = []

    async def script(talk: Talk) -> None:
        if talk.number == 1:
            lost.set()  # and the client knows it, and has not subscribed again yet
        await talk.welcome()
        if talk.number == 0:
            await talk.accept("sub")
            await talk.accept("sub")
            await talk.close(CloseReason.RESTART.code)
            return
        for _ in range(2):
            command = await talk.accept("sub")
            seen.append((command.type, command.channel))
        command = await talk.accept("pub")
        seen.append((command.type, command.channel))
        await talk.publish("news:a", "back")
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:a", "news:b") as messages:
                await lost.wait()
                assert await client.publish("news:c", 1) == fanline.Published("made", None)
                assert (await anext(messages)).data == "back"
    assert sorted(seen[:2]) == [("sub", "news:a"), ("sub", "news:b")]
    assert seen[2] == ("pub", "news:c")


async def test_a_publish_under_way_when_the_connection_is_lost_says_that_its_outcome_is_unknown() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.receive()
            await talk.close(CloseReason.RESTART.code)
        else:
            await talk.accept("pub")
            await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ConnectionLost, match="may have been done") as caught:
                await client.publish("news:a", 1)
            assert not caught.value.final
            await client.publish("news:a", 1)


async def test_a_connection_that_is_cut_has_no_close_code_and_reads_the_same_in_every_world() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.receive()
        await talk.cut(b"\x82\x7e\x01\x00" + b"half of a frame")

    said = list[str]()
    with trio.fail_after(20):
        async with running_peer(script) as url:
            async with fanline.Client(url, notice=said.append) as client:
                with pytest.raises(fanline.ConnectionLost) as lost:
                    await client.ping()
    assert (lost.value.code, lost.value.final) == (None, False)
    assert said[0] == "the connection was lost; coming back"


async def test_a_client_does_not_come_back_before_the_server_told_it_to() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.send(Envelope(MessageType.RECONNECT, data={"delay": 600, "reason": "restart"}))
            await talk.close(CloseReason.RESTART.code)
            left.append(trio.current_time())
        else:
            left.append(trio.current_time())
            back.set()
            await _answer_all(talk)

    back = trio.Event()
    left: list[float] = []
    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url):
            await back.wait()
    assert left[1] - left[0] > 0.55  # its own back-off begins with a quarter of a second at most


async def test_a_right_that_is_lost_ends_the_subscriptions_of_its_channel_with_the_reason() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        await talk.accept("sub")
        await talk.publish("news:a", "last words")
        data = {"code": "permission_denied", "message": "you have left"}
        await talk.send(Envelope(MessageType.UNSUB, channel="news:a", data=data))
        await talk.publish("news:b", "goes on")
        command = await talk.accept("sub")
        assert command.channel == "news:a"
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:b") as others, client.subscribe("news:a") as messages:
                assert (await anext(messages)).data == "last words"
                with pytest.raises(fanline.ServerError, match="you have left") as caught:
                    await anext(messages)
                assert caught.value.code == "permission_denied"
                assert (await anext(others)).data == "goes on"
                async with client.subscribe("news:a"):
                    pass


async def test_an_acknowledgement_names_the_inbox_the_offset_and_its_epoch() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.accept("ack")
        assert (command.channel, command.offset, command.epoch) == ("user:ann", 7, "e1")
        await talk.refuse("unknown_message")
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            await client.ack(fanline.Message("user:ann", 1, offset=7, epoch="e1"))
            with pytest.raises(fanline.ServerError):
                await client.ack(fanline.Message("user:ann", 1, offset=8))


async def test_a_subscription_refused_after_a_reconnect_ends_alone() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.accept("sub")
            await talk.publish("news:a", "last words")
            await talk.close(CloseReason.RESTART.code)
            return
        await talk.refuse("permission_denied")
        await _answer_all(talk)

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:a") as messages:
                assert (await anext(messages)).data == "last words"
                with pytest.raises(fanline.ServerError, match="no, thank you") as caught:
                    await anext(messages)
            assert caught.value.code == "permission_denied"
            await client.publish("news:b", 1)


async def test_a_slow_consumer_holds_the_socket_back_and_loses_nothing() -> None:
    count, sent_all = 600, trio.Event()

    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        for number in range(count):
            await talk.publish("news:all", [number, "x" * 65536])
        sent_all.set()
        await talk.until_closed()

    with trio.fail_after(30):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:all", buffer=4) as messages:
                assert (await anext(messages)).data[0] == 0
                with trio.move_on_after(1):
                    await sent_all.wait()
                assert not sent_all.is_set(), "40 MB fit somewhere: they were not held back"
                for number in range(1, count):
                    assert (await anext(messages)).data[0] == number


async def test_a_consumer_may_publish_while_its_own_buffer_is_full() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        for number in range(10):
            await talk.publish("news:all", number)
        await talk.accept("pub")
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:all", buffer=1) as messages:
                await anext(messages)
                await client.publish("news:b", 1)
                assert [(await anext(messages)).data for _ in range(9)] == list(range(1, 10))


async def test_an_overrun_ends_the_subscription_after_what_it_holds() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        await talk.receive()  # the ping, which is answered last
        for number in range(OVERRUN + 5):
            await talk.publish("news:all", number)
        await talk.send(Envelope(MessageType.PONG, id="~ping"))
        await _answer_all(talk)

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:all", buffer=1) as messages:
                await client.ping()
                for number in range(OVERRUN):
                    assert (await anext(messages)).data == number
                with pytest.raises(fanline.SlowConsumer, match="news:all"):
                    await anext(messages)
            await client.ping()


async def test_a_silent_server_is_asked_for_a_sign_of_life_and_then_left() -> None:
    async def script(talk: Talk) -> None:
        if talk.number == 0:
            await talk.welcome(heartbeat=50)
            assert {(await talk.receive()).type for _ in range(2)} == {"pub", "ping"}
            await talk.until_closed()
        await talk.welcome()
        await _answer_all(talk)

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ConnectionLost):
                await client.publish("news:a", 1)  # the first connection never answers
            await client.publish("news:a", 1)


async def test_a_cancelled_command_leaves_the_connection_as_it_was() -> None:
    async def script(talk: Talk) -> None:
        assert talk.number == 0
        await talk.welcome()
        late = await talk.receive()
        await talk.accept("pub")
        await talk.send(Envelope(MessageType.OK, id=late.id, data={"id": late.id}))
        await talk.accept("pub")
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with trio.move_on_after(0.05) as scope:
                await client.publish("news:a", 1)
            assert scope.cancelled_caught
            await client.publish("news:a", 2)
            await client.publish("news:a", 3)


async def test_a_message_over_the_servers_limit_is_refused_before_it_costs_the_connection() -> None:
    with trio.fail_after(5):
        async with running_peer(_echo) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ServerError) as caught:
                await client.publish("news:a", "x" * 70_000)
            assert caught.value.code == "too_large"
            await client.ping()


async def test_what_no_server_accepts_is_refused_at_once_without_waiting_for_an_answer() -> None:
    with trio.fail_after(5):
        async with running_peer(_echo) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ServerError, match="129 characters, at most 128"):
                await client.publish("news:a", 1, event="e" * 129)
            for wrong in ("i" * 15, "i" * 129, "i" * 15 + "\n", ""):
                with pytest.raises(fanline.ServerError, match="16 to 128 printable characters"):
                    await client.publish("news:a", 1, deduplication_id=wrong)
            with pytest.raises(fanline.ServerError) as caught:
                await client.publish("no channel", 1)
            assert caught.value.code == "bad_channel"
            with pytest.raises(fanline.ServerError):
                async with client.subscribe("x:" + "a" * 1100):
                    pass
            await client.ping()


async def test_data_is_converted_to_what_json_and_cbor_can_both_hold() -> None:
    @dataclass
    class Point:
        x: int

    commands: list[Envelope] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        commands.append(await talk.accept("pub"))
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            await client.publish("news:a", (Point(1), {2}))
            with pytest.raises(TypeError):
                await client.publish("news:a", object())
            with pytest.raises(ValueError, match="64 bits"):
                await client.publish("news:a", 2**80)
    assert commands[0].value == [{"x": 1}, [2]]


@pytest.mark.parametrize("error", [KeyError("mine"), ExceptionGroup("mine", [KeyError(1), ValueError(2)])])
async def test_what_the_users_block_raises_leaves_it_unchanged(error: Exception) -> None:
    with trio.fail_after(5):
        async with running_peer(_echo) as url:
            with pytest.raises(type(error)) as caught:
                async with fanline.Client(url):
                    raise error
    if isinstance(error, ExceptionGroup):  # Trio takes groups apart and puts them together again
        assert isinstance(caught.value, ExceptionGroup)
        assert caught.value.exceptions == error.exceptions
    else:
        assert caught.value is error


async def test_a_port_on_which_nothing_listens_is_an_error_at_once_and_not_a_retry() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}/ws"
        with trio.fail_after(5), pytest.raises(fanline.ConnectionRefused, match="cannot connect to ws://127"):
            async with fanline.Client(url):
                pass


async def test_an_http_refusal_is_reported_with_its_status_and_text() -> None:
    with trio.fail_after(5):
        async with refusing_peer(400, b"no such thing") as url:
            with pytest.raises(fanline.ConnectionRefused, match="HTTP 400 no such thing") as caught:
                async with fanline.Client(url):
                    pass
    assert (caught.value.status, caught.value.final) == (400, True)


@pytest.mark.parametrize("make", ["subscribe", "watch_presence", "task"])
async def test_what_was_not_entered_or_is_entered_again_says_so_and_does_not_wait(make: str) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        while True:
            command = await talk.receive()
            data = {"count": 0, "connections": 0, "users": []} if command.type == MessageType.PRESENCE else None
            await talk.send(Envelope(MessageType.OK, id=command.id, channel=command.channel, data=data))
            if make == "task" and command.type == MessageType.SUB:
                data = {"snapshot": {"state": "running"}, "output": []}
                await talk.send(Envelope(MessageType.PUB, channel=command.channel, event="task_snapshot", data=data))

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            made = getattr(client, make)("7" if make == "task" else "room:7")
            with pytest.raises(RuntimeError, match="enter it before you iterate"):
                await anext(made)
            async with made:
                pass
            with pytest.raises(RuntimeError, match="entered once"):
                async with made:
                    pass
            await client.subscribe("room:8").__aenter__()  # the client goes on


async def test_what_a_function_for_notices_raises_is_logged_and_costs_no_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        if talk.number == 0:
            await talk.close(CloseReason.RESTART.code)
            return
        await talk.send(Envelope(MessageType.PUB, channel="news:a", data="here"))
        await talk.until_closed()

    def notice(sentence: str) -> None:
        raise ZeroDivisionError(sentence)

    with trio.fail_after(20):
        async with running_peer(script) as url, fanline.Client(url, notice=notice) as client:
            async with client.subscribe("news:a") as messages:
                assert (await anext(messages)).data == "here"
    logged = [record.exc_info for record in caplog.records if "function for notices" in record.message]
    assert [info and info[0] for info in logged] == [ZeroDivisionError, ZeroDivisionError]


async def test_a_subscription_that_was_not_entered_cannot_be_iterated() -> None:
    with trio.fail_after(5):
        async with running_peer(_echo) as url, fanline.Client(url) as client:
            with pytest.raises(RuntimeError, match="async with"):
                async for _ in client.subscribe("news:a"):
                    pass
            async with client.subscribe("news:a") as messages:
                pass
            with pytest.raises(RuntimeError, match="entered once"):
                async with messages:
                    pass


async def test_the_last_subscription_of_a_channel_unsubscribes_and_not_one_before() -> None:
    seen: list[str] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        while True:
            command = await talk.receive()
            seen.append(f"{command.type} {command.channel or ''}".strip())
            kind = MessageType.PONG if command.type == MessageType.PING else MessageType.OK
            await talk.send(Envelope(kind, id=command.id))

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            async with client.subscribe("news:a"):
                async with client.subscribe("news:a"):
                    pass
                await client.ping()
            await client.ping()
    assert seen == ["sub news:a", "sub news:a", "ping", "unsub news:a", "ping"]


async def test_leaving_the_client_waits_for_the_servers_good_bye_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fanline.client.shells.ends.CLOSE_SECONDS", 60)
    with trio.fail_after(5):
        async with running_peer(_echo) as url:
            async with fanline.Client(url) as client:
                await client.ping()
            with pytest.raises(fanline.ConnectionLost, match="closed"):
                await client.ping()


@pytest.mark.parametrize("url", ["ftp://x/", "ws://", "127.0.0.1:8080"])
def test_a_url_of_another_kind_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not a WebSocket URL"):
        fanline.Client(url)
