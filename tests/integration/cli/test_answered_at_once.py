"""What is wrong is answered at once, whichever way it is published: by the command line, a WebSocket, or the SDK."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

import fanline
from tests.support.programs.commands import FANLINE, run_fanline
from tests.support.servers.serve import Serve, serve_environ, shared_serve
from tests.support.tasks.stored import served_tasks

INVALID = [
    ("task_progress", '{"percent": 101}', "task_progress: Expected"),
    ("task_output", '{"lines": [1]}', "task_output: Expected"),
    ("task_snapshot", "{}", "only the engine says task_snapshot"),
    ("task_stalled", "{}", "only the engine says task_stalled"),
    ("task_cancelled", '{"forced": true}', "only the engine says task_cancelled"),
]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with shared_serve() as shared:
        yield shared


@asynccontextmanager
async def _listening(serve: Serve, *args: str) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """`fanline sub ARGS`, and what waits until it has said something on stderr."""
    process = await trio.lowlevel.open_process(
        [*FANLINE, "sub", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=serve_environ(serve.directory),
    )
    assert process.stderr is not None
    stderr, heard = process.stderr, b""

    async def said(text: bytes) -> None:
        nonlocal heard
        while text not in heard:
            data = await stderr.receive_some(4096)
            assert data, heard
            heard += data

    try:
        yield said
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await stderr.aclose()


@pytest.mark.parametrize(("event", "data", "said"), INVALID)
@pytest.mark.parametrize("way", ["NATS", "WebSocket"])
async def test_an_invalid_task_event_of_pub_is_an_error_and_not_stored(
    serve: Serve, way: str, event: str, data: str, said: str
) -> None:
    task = f"{event}-{way}"
    url = [] if way == "NATS" else ["--url", f"ws://127.0.0.1:{serve.port}/ws"]
    ended = await run_fanline(serve, "pub", f"task:{task}", data, "--event", event, *url)
    assert ended.returncode == 1
    assert said in ended.stderr.decode()
    async with served_tasks(serve) as tasks:
        assert await tasks.stored(task) == []


@pytest.mark.parametrize(("event", "data", "said"), INVALID)
async def test_an_invalid_task_event_is_not_published_by_the_sdk(event: str, data: str, said: str) -> None:
    with pytest.raises(fanline.NotPublished, match=said):
        fanline.publish("task:sdk", msgspec.json.decode(data), event=event)


async def test_the_lines_before_an_invalid_event_are_published_and_counted(serve: Serve) -> None:
    lines = b'{"percent": 1}\n{"percent": 2}\n{"percent": 300}\n'
    ended = await run_fanline(serve, "pub", "task:lines", "-", "--event", "task_progress", stdin=lines)
    assert ended.returncode == 1
    assert b"the 2 before it are published" in ended.stderr
    async with served_tasks(serve) as tasks:
        with trio.fail_after(60):
            while len(stored := await tasks.stored("lines")) < 2:  # a moment after they are published
                await trio.sleep(0.05)
        assert [each["d"] for each in stored] == [{"percent": 1}, {"percent": 2}]


async def test_a_client_gets_an_err_for_an_invalid_task_event_and_an_ok_for_what_older_producers_say(
    serve: Serve,
) -> None:
    with trio.fail_after(60):
        async with fanline.Client(f"ws://127.0.0.1:{serve.port}/ws") as client:
            with pytest.raises(fanline.ServerError, match="percent") as refused:
                await client.publish("task:client", {"percent": "half"}, event="task_progress")
            assert refused.value.code == "bad_message"
            await client.publish("task:client", {"progress": 50}, event="task_progress_update")
            await client.publish("task:client", {"percent": "half"}, event="my_own")


@pytest.mark.parametrize("start", ["--last=3", "--from-start", "--offset=0"])
async def test_a_start_position_on_an_ephemeral_channel_is_a_warning(serve: Serve, start: str) -> None:
    async with _listening(serve, "news:all", start) as said:
        with trio.fail_after(60):
            await said(b"fanline: warning: news:all is ephemeral, so it has no stored messages")


async def test_a_start_position_on_a_durable_channel_is_no_warning(serve: Serve) -> None:
    await run_fanline(serve, "pub", "doc:1", "1")
    ended = await run_fanline(serve, "sub", "doc:1", "--last", "1", "--count", "1")
    assert b"warning" not in ended.stderr
    assert ended.stdout == b"doc:1  -  1\n"
