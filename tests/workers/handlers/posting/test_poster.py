"""Whatever a webhook answers, and whatever its URL is, events are taken or they are not: nothing else comes of it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fanline.engine.hooks.settings import Webhook
from fanline.protocol.hooks.events import decode_event, encode_event
from fanline.workers.handlers.posting.poster import MAX_REASON, NotTakenError, Poster, open_http

pytestmark = pytest.mark.process

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
BODY = encode_event("x", "1", 0, "worker-0", {})


async def post(url: str) -> None:
    async with open_http() as client:
        await Poster(Webhook(url=url, events=("x",), secret=SECRET), client).post([(decode_event(BODY), BODY)])


async def refusal(url: str) -> str:
    with pytest.raises(NotTakenError) as raised:
        await post(url)
    return str(raised.value)


@asynccontextmanager
async def answering(answer: bytes, rest: Callable[[], Awaitable[object]]) -> AsyncIterator[str]:
    """The URL of a webhook that answers this, and then ends the connection after `rest`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(answer)
        await writer.drain()
        await rest()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def answered_with(answer: bytes) -> str:
    """Why events were not taken by a webhook that answers this."""
    async with answering(answer, lambda: asyncio.sleep(0)) as url:
        return await refusal(url)


async def taken_though(answer: bytes, *, ends: bool) -> None:
    """Returns if events are taken by a webhook that answers this, and then ends the connection, or says no more."""
    ended = asyncio.Event()
    async with asyncio.timeout(10), answering(answer, ended.wait) as url:
        if ends:
            ended.set()
        await post(url)
        ended.set()


@pytest.mark.parametrize("ends", [False, True])
def test_events_count_as_taken_by_the_status_whatever_becomes_of_the_rest_of_the_answer(ends: bool) -> None:
    asyncio.run(taken_though(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", ends=ends))
    asyncio.run(taken_though(b"HTTP/1.1 200 OK\r\n\r\nok", ends=ends))
    asyncio.run(taken_though(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", ends=ends))


def test_the_reason_is_short_whatever_was_answered() -> None:
    assert "illegal status line" in asyncio.run(answered_with(b"nonsense\r\n\r\n"))
    assert len(asyncio.run(answered_with(b"x" * 60_000 + b"\r\n\r\n"))) <= MAX_REASON


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    assert asyncio.run(answered_with(answer.encode())) == f"it answered with status {status}"


def test_a_url_that_no_request_can_have_takes_no_events() -> None:
    assert asyncio.run(refusal("https://xn--a/?key=hidden")) == "its URL cannot be used"
