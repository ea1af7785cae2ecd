"""`fanline.publish` through a scripted server."""

from collections.abc import Iterator

import pytest
import trio

import fanline
from fanline.protocol.errors import CloseReason
from fanline.publishing import websocket
from tests.fanline.client.peer import Talk, refusing_peer, running_peer


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread outlives its test."""
    monkeypatch.setattr(websocket, "EXIT_SECONDS", 0.0)
    yield
    publishers = list(websocket._publishers.values())
    websocket._publishers.clear()
    for publisher in publishers:
        publisher.finish()


async def _accept_all(talk: Talk) -> None:
    await talk.welcome()
    while True:
        await talk.accept("pub")


async def test_messages_arrive_in_the_order_of_the_calls_over_one_connection() -> None:
    got: list[object] = []

    async def script(talk: Talk) -> None:
        assert talk.number == 0
        await talk.welcome()
        while True:
            got.append((await talk.accept("pub")).value)

    with trio.fail_after(20):
        async with running_peer(script) as url:
            for receipt in [fanline.publish("news:a", number, url=url) for number in range(300)]:
                await receipt
    assert got == list(range(300))


async def test_a_refusal_is_said_with_its_reason_and_the_next_message_goes_on() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.refuse("permission_denied")
        await talk.accept("pub")
        await talk.until_closed()

    with trio.fail_after(20):
        async with running_peer(script) as url:
            with pytest.raises(fanline.NotPublished, match="news:a was not published: no, thank you"):
                await fanline.publish("news:a", 1, url=url)
            await fanline.publish("news:a", 2, url=url)


async def test_a_message_whose_connection_ends_before_the_answer_is_in_doubt() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.receive()
            await talk.close(CloseReason.RESTART.code)
            return
        await talk.accept("pub")
        await talk.until_closed()

    with trio.fail_after(20):
        async with running_peer(script) as url:
            with pytest.raises(fanline.NotPublished, match="it is not known whether the message on news:a"):
                await fanline.publish("news:a", 1, url=url)
            await fanline.publish("news:a", 2, url=url)


async def test_after_a_close_that_is_final_another_message_tries_again() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        if talk.number == 0:
            await talk.accept("pub")
            await talk.receive()
            await talk.close(CloseReason.FORBIDDEN.code)
            return
        await talk.accept("pub")
        await talk.until_closed()

    with trio.fail_after(20):
        async with running_peer(script) as url:
            await fanline.publish("news:a", 1, url=url)
            with pytest.raises(fanline.NotPublished):
                await fanline.publish("news:a", 2, url=url)
            await fanline.publish("news:a", 3, url=url)


async def test_a_handshake_that_is_refused_is_said_at_once() -> None:
    with trio.fail_after(20):
        async with refusing_peer(401, b"a token is needed") as url:
            with pytest.raises(fanline.NotPublished, match="HTTP 401 a token is needed"):
                await fanline.publish("news:a", 1, url=url)


async def test_more_than_a_bound_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.until_closed()

    monkeypatch.setattr(websocket, "MAX_WAITING", 2)
    with trio.fail_after(20):
        async with running_peer(script) as url:
            receipts = [fanline.publish("news:a", number, url=url) for number in range(3)]
            with pytest.raises(fanline.NotPublished, match="2 messages are waiting for the server already"):
                await receipts[2]
            assert not receipts[0].done
            with trio.move_on_after(0.1):
                await receipts[0]
            with trio.move_on_after(0.1):
                await receipts[1]


async def test_a_server_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.until_closed()

    monkeypatch.setattr(websocket, "DURABLE_SECONDS", 0.3)
    with trio.fail_after(20):
        async with running_peer(script) as url:
            with pytest.raises(fanline.NotPublished, match=r"not known whether .* has not answered after 0\.3 seconds"):
                await fanline.publish("news:a", 1, url=url)
