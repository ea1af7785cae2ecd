"""What no server could read is refused to whoever gave it, and nobody else waits for it."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

import fanline
from fanline.protocol.errors import CloseReason
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (("1", "x"), TypeError),
        ((1.5, "x"), TypeError),
        ((True, "x"), TypeError),
        ((1, 7), TypeError),
        ((1,), ValueError),
        ((-1, "x"), fanline.ServerError),
        ((2**64, "x"), fanline.ServerError),
        ((1, "a\nb"), fanline.ServerError),
        ((1, "x" * 200), fanline.ServerError),
    ],
)
async def test_what_is_no_position_is_refused_at_once_and_the_channel_can_be_subscribed(
    place: Any, error: type[Exception]
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(error):
                await client.subscribe("doc:1", positions={"doc:1": place}).__aenter__()
            if error is TypeError:
                with pytest.raises(error):
                    await client.history("doc:1", after=fanline.Position(*place))
            async with client.subscribe("doc:1"):
                pass


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        (lambda client: client.subscribe(["news:a"]), TypeError, r"subscribe\(\*channels\) is a str, not list"),
        (lambda client: client.subscribe("doc:1", last=-1), ValueError, "last is a number from 1 to 1,000,000, not -1"),
        (lambda client: client.subscribe("doc:1", last="3"), TypeError, "last is an int, not str"),
        (lambda client: client.subscribe("doc:1", positions={"doc:1": 5}), TypeError, "an offset and an epoch.* not 5"),
        (lambda client: client.task("1", lines=1001), ValueError, "lines is a number from 0 to 1,000, not 1001"),
        (lambda client: client.history("doc:1", limit=501), ValueError, "limit is a number from 1 to 500, not 501"),
        (lambda client: client.history("doc:1", before=(1, "x"), after=(1, "x")), ValueError, "not both"),
    ],
)
async def test_a_wrong_argument_is_named_in_the_words_of_the_program(
    use: Callable[[fanline.Client], Any], error: type[Exception], says: str
) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.until_closed()

    with trio.fail_after(10):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(error, match=says):
                await use(client)


@pytest.mark.parametrize(
    "named",
    [{"event": 7}, {"x": 7}, {"x": ["a"]}, {"x": {1: 2}}, {"deduplication_id": 7}, {"channel": 7}, {"data": "\ud800"}],
)
async def test_an_argument_that_no_message_can_hold_is_refused_while_disconnected_too_and_the_client_goes_on(
    named: dict[str, Any],
) -> None:
    back = trio.Event()

    async def script(talk: Talk) -> None:
        if talk.number == 1:
            await back.wait()
        await talk.welcome()
        if talk.number == 0:
            await talk.close(CloseReason.RESTART.code)
            return
        await talk.accept("pub")
        await talk.until_closed()

    lost = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def notice(sentence: str) -> None:
        token.run_sync_soon(lost.set)

    async def publish(client: fanline.Client) -> None:
        with pytest.raises((TypeError, ValueError)):
            arguments: dict[str, Any] = {"channel": "news:a", "data": 1} | named
            await client.publish(**arguments)

    with trio.fail_after(20):
        async with running_peer(script) as url, fanline.Client(url, notice=notice) as client:
            await lost.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, client)
                back.set()
            assert (await client.publish("news:a", 1)).id == "made"
