"""The clients that are not ours do what the stories of the systems rely on, each over its own library."""

import json
from collections.abc import Iterator

import pytest
import trio

from tests.support.foreign.client import KINDS, Retry, foreign
from tests.support.servers.serve import Serve, kill, running_serve, shared_serve
from tests.support.tasks.on_worker import worker_at

pytestmark = pytest.mark.parametrize("kind", KINDS)
SECONDS = 60
SOON = Retry((0.05,) * 3)


@pytest.fixture(scope="module")
def shared() -> Iterator[Serve]:
    """For tests that end no worker."""
    with shared_serve() as serve:
        yield serve


async def test_they_speak_hear_and_are_told_why_a_connection_ends(kind: str, shared: Serve) -> None:
    with trio.fail_after(SECONDS):
        async with foreign(kind) as client:
            site = shared.url.removesuffix("/ws")
            await client.open(f"{site}/ws/test/c1", says=[{"type": "hello"}])
            await client.saw("open")
            assert (await client.heard("welcome", "echo"))["original_message"] == {"type": "hello"}
            await client.send("not JSON")
            assert (await client.heard("echo"))["original_message"] == "not JSON"
            await client.close(1000)
            assert (await client.saw("close"))["code"] == 1000


async def test_they_try_as_often_as_told_after_a_refusal_and_then_give_up(kind: str, shared: Serve) -> None:
    with trio.fail_after(SECONDS):
        async with foreign(kind) as client:
            await client.open(shared.url.removesuffix("/ws") + "/nothing", retry=SOON)
            refused = await client.saw("refused")
            assert refused["status"] == 404
            assert refused["body"] == "" or json.loads(refused["body"])["error"] == "not_found"
            await client.saw("retry", "refused", "retry", "refused", "retry", "refused", "gave_up")


async def test_they_come_back_after_a_killed_worker_and_say_again_what_they_say_first(kind: str) -> None:
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, foreign(kind) as client:
            await client.open(serve.url, says=[{"type": "ping", "timestamp": 1}], retry=SOON)
            for _ in range(4):  # more often than it may try in a row: an open connection begins the count again
                await client.saw("open")
                await client.heard("connection_established", "pong")
                worker = worker_at(serve, client.process.pid)
                assert worker
                await kill(worker)
                assert (await client.saw("close"))["code"] == 1006
                await client.saw("retry")


async def test_they_stay_away_after_the_codes_that_are_final(kind: str) -> None:
    with trio.fail_after(SECONDS):
        async with running_serve(1) as serve, foreign(kind) as client:
            await client.open(serve.url, retry=Retry((0.05,), final=(1001, 1006, 1012)))
            await client.saw("open")
            await client.heard("connection_established")
            await kill(serve.worker_pids()[0])
            await client.saw("close")
            await client.open(serve.url)  # the next report is of this one, so it has not come back by itself
            await client.saw("open")
