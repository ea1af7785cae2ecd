"""The client shows its token, and another one when the server wants it."""

from contextlib import suppress
from typing import Any

import pytest
import trio

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason
from tests.engine.access.clients import token, token_access
from tests.engine.running import running_engine
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

RIGHTS = {"task:*": ["sub"], "typing:*": ["sub", "pub"]}


async def test_a_client_with_a_token_gets_in_and_one_without_is_told_why() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access()) as engine:
            url = f"ws://{engine.host}:{engine.port}/ws"
            async with fanline.Client(url, token=token(channels=RIGHTS)) as client:
                await client.publish("typing:1", "hello")
            with pytest.raises(fanline.ConnectionRefused, match="expired") as refused:
                async with fanline.Client(url, token=token(ends_in=-60)):
                    pass
            assert (refused.value.status, refused.value.final) == (401, True)
            async with fanline.Client(url) as stranger:
                with pytest.raises(fanline.ServerError, match="unauthenticated"):
                    await stranger.publish("typing:1", "hello")


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_client_that_can_make_tokens_shows_a_new_one_before_the_old_one_ends(is_async: bool) -> None:
    made = 0

    def make() -> str:
        nonlocal made
        made += 1
        return token(ends_in=0.5 if made == 1 else 60, channels=RIGHTS)

    async def make_async() -> str:
        return make()

    with trio.fail_after(20):
        async with running_engine(access=token_access(grace=0.3)) as engine:
            url = f"ws://{engine.host}:{engine.port}/ws"
            async with fanline.Client(url, token=make_async if is_async else make) as client:
                with trio.fail_after(10):
                    while made < 2:
                        await client.publish("typing:1", "hello")
                await trio.sleep(1.2)  # the end of the first token, and its grace
                await client.publish("typing:1", "hello")
            assert made == 2
            assert engine.server.statistics().accepted == 1


@pytest.mark.parametrize("failure", [OSError("no network"), ValueError("no such user"), "x" * 100_000])
async def test_a_new_token_that_cannot_be_made_or_sent_costs_no_connection(
    failure: Exception | str, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.send(Envelope(MessageType.AUTH, data={"expires": 1}))
        while True:
            command = await talk.receive()
            assert (talk.number, command.type) == (0, "pub")
            await talk.send(Envelope(MessageType.OK, id=command.id, data={"id": "1"}))

    made = 0

    def make() -> str:
        nonlocal made
        made += 1
        if made == 1:
            return "first"
        if isinstance(failure, Exception):
            raise failure
        return failure

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url, token=make) as client:
            while "no new token" not in caplog.text:
                await client.publish("news:all", 1)
            await client.publish("news:all", 1)


_NO_TOKENS = [
    (7, TypeError),
    (b"abc", TypeError),
    (["abc"], TypeError),
    ("", ValueError),
    ("abc def", ValueError),
    ("abc\r\nX-Forwarded-For: 10.0.0.1", ValueError),
    ("\u00e9", ValueError),
]


@pytest.mark.parametrize(("rubbish", "error"), _NO_TOKENS)
async def test_what_is_no_token_is_refused_where_it_is_given_and_is_not_in_the_error(
    rubbish: Any, error: type[Exception]
) -> None:
    with pytest.raises(error) as given:
        fanline.Client("ws://127.0.0.1:9/ws", token=rubbish)
    with trio.fail_after(10), pytest.raises(error) as made:
        async with fanline.Client("ws://127.0.0.1:9/ws", token=lambda: rubbish):
            pass
    assert not {"abc", "10.0.0.1"} & set(f"{given.value} {made.value}".split())


@pytest.mark.parametrize("rubbish", [value for value, _ in _NO_TOKENS])
async def test_what_is_no_token_later_on_is_a_warning_and_costs_no_connection(
    rubbish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.send(Envelope(MessageType.AUTH, data={"expires": 1}))
        while True:
            command = await talk.receive()
            assert (talk.number, command.type) == (0, "pub")
            await talk.send(Envelope(MessageType.OK, id=command.id, data={"id": "1"}))

    tokens = iter(["first"])
    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url, token=lambda: next(tokens, rubbish)) as client:
            while "no new token" not in caplog.text:
                await client.publish("news:all", 1)
            await client.publish("news:all", 1)


async def test_a_token_is_shown_without_the_line_break_of_the_file_that_it_was_in() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access()) as engine:
            url = f"ws://{engine.host}:{engine.port}/ws"
            for source in (own := token(channels=RIGHTS) + "\n"), lambda: own:
                async with fanline.Client(url, token=source) as client:
                    await client.publish("typing:1", "hello")


async def test_a_client_that_can_make_tokens_comes_back_where_another_would_give_up() -> None:
    shown: list[str] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.close(CloseReason.UNAUTHENTICATED.code)
            return
        while True:
            command = await talk.receive()
            await talk.send(Envelope(MessageType.OK, id=command.id, data={"id": "1"}))

    def make() -> str:
        shown.append(f"token-{len(shown)}")
        return shown[-1]

    with trio.fail_after(30):
        async with running_peer(script) as url, fanline.Client(url, token=make) as client:
            while len(shown) < 2:  # what is said meanwhile is lost, or waits for the next connection
                with suppress(fanline.ConnectionLost):
                    await client.publish("news:all", 1)
            await client.publish("news:all", 1)
        assert shown == ["token-0", "token-1"]
