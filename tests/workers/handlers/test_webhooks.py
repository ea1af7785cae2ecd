"""Webhooks, against a small HTTP server that misbehaves in all the ways that servers do."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from fanline.protocol.handlers import MAX_ANSWER_BYTES, HandlerError, parse_handler
from fanline.workers.handlers.webhooks import Webhooks

pytestmark = pytest.mark.process  # asyncio.start_server listens, and httpx connects

Behave = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""Called with the number of the request, from 0 on."""


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Hook:
    """One server; `requests` are heads and bodies."""

    def __init__(self, behave: Behave) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self._behave = behave

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        self.requests.append((head, await reader.readexactly(length)))
        try:
            await self._behave(len(self.requests) - 1, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def ask(
    behave: Behave, *, seconds: float = 5.0, retries: int = 1, path: str = "/auth?key=secret"
) -> tuple[bytes, Hook]:
    hook = Hook(behave)
    webhooks = Webhooks(seconds, retries)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(hook.serve, "127.0.0.1", 0))
        stack.push_async_callback(webhooks.aclose)
        port = server.sockets[0].getsockname()[1]
        try:
            return await webhooks.ask(parse_handler(f"http://127.0.0.1:{port}{path}"), b'{"type":"authenticate"}'), hook
        except HandlerError as error:
            error.add_note(str(len(hook.requests)))
            raise


def says(*answers: bytes) -> Behave:
    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[min(number, len(answers) - 1)])

    return behave


def refusal(behave: Behave, *, seconds: float = 5.0, retries: int = 1) -> tuple[str, int]:
    """The error, and how many requests there were."""
    with pytest.raises(HandlerError) as raised:
        asyncio.run(ask(behave, seconds=seconds, retries=retries))
    assert "secret" not in str(raised.value)
    return str(raised.value), int(raised.value.__notes__[0])


def test_the_request_is_posted_as_it_came_and_the_answer_handed_on_as_it_is() -> None:
    answer, hook = asyncio.run(ask(says(response(b'{"allow":true}'))))
    assert answer == b'{"allow":true}'
    ((head, body),) = hook.requests
    assert head.startswith(b"POST /auth?key=secret HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert body == b'{"type":"authenticate"}'


def test_what_may_go_better_another_time_is_tried_again_a_bounded_number_of_times() -> None:
    bad = response(b"", "500 Oops")
    answer, hook = asyncio.run(ask(says(bad, bad, response(b"{}")), retries=2))
    assert (answer, len(hook.requests)) == (b"{}", 3)
    assert refusal(says(bad), retries=2) == ("it answered with status 500", 3)
    assert refusal(says(b""), retries=1)[1] == 2  # it closes the connection
    assert refusal(says(bad), retries=0)[1] == 1


@pytest.mark.parametrize("status", ["204 No Content", "301 Moved", "302 Found", "307 Again", "400 Bad", "404 Gone"])
def test_any_other_status_is_no_answer_and_no_redirect_is_followed(status: str) -> None:
    answer = response(b'{"allow":true}', status, "Location: /elsewhere")
    if status.startswith("204"):
        answer = response(b"", status)
    assert refusal(says(answer)) == (f"it answered with status {status[:3]}", 1)


def test_one_that_is_slow_is_given_up_with_all_its_retries() -> None:
    async def slow(_: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def drips(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    for behave in (slow, drips):
        assert refusal(behave, seconds=0.3, retries=10) == ("it did not answer within 0.3 s", 1)


def test_an_answer_that_does_not_end_is_cut_off() -> None:
    async def floods(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_ANSWER_BYTES // 1024 + 100):
            writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
            await writer.drain()

    assert refusal(floods) == (f"its answer has more than {MAX_ANSWER_BYTES} bytes", 1)


@pytest.mark.parametrize("answer", [b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"])
def test_what_is_no_http_is_no_answer(answer: bytes) -> None:
    assert refusal(says(answer), retries=0)[1] == 1


def test_nobody_there_is_no_answer() -> None:
    async def main() -> None:
        webhooks = Webhooks(2.0, 0)
        try:
            await webhooks.ask(parse_handler("http://127.0.0.1:1/?key=secret"), b"{}")
        finally:
            await webhooks.aclose()

    with pytest.raises(HandlerError, match="cannot be reached"):
        asyncio.run(main())
