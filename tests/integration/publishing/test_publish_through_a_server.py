"""`fanline.publish` where no NATS is known: through a real server, in programs of a few lines."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import fanline
from tests.integration.publishing.test_publish import (
    ASYNCIO,
    FIRE_AND_FORGET,
    GEVENT,
    MULTIPROCESSING,
    OUTAGE,
    PLAIN,
    THREADS,
    TRIO,
    line_of,
    program,
)
from tests.support.servers.serve import Serve, running_serve, shared_serve
from tests.support.tasks.stored import SECONDS, in_thread, run_script

SCRIPTS = {
    "plain": PLAIN,
    "asyncio": ASYNCIO,
    "trio": TRIO,
    "threads": THREADS,
    "forgets": FIRE_AND_FORGET,
    "processes": MULTIPROCESSING,
}


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with shared_serve() as serve:
        yield serve


def away(tmp_path: Path, url: str) -> dict[str, str]:
    """The environment of a program on another machine than the server's."""
    return {"FANLINE_URL": url, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "FANLINE_NATS": ""}


async def stored(url: str, channel: str) -> list[object]:
    async with fanline.Client(url) as client:
        return [message.data for message in (await client.history(channel, limit=500)).messages]


@pytest.mark.parametrize("name", SCRIPTS)
async def test_every_kind_of_program_publishes_and_what_is_durable_is_stored_when_it_says_so(
    serve: Serve, tmp_path: Path, name: str
) -> None:
    script = SCRIPTS[name].replace("task:stored", f"task:{name}")
    ended = await in_thread(lambda: run_script(script, **away(tmp_path, serve.url)))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert await stored(serve.url, f"task:{name}") == [0, 1, 2]


async def test_a_name_is_looked_up_even_when_the_program_ends_at_once(serve: Serve, tmp_path: Path) -> None:
    script = FIRE_AND_FORGET.replace("task:stored", "task:by-name")
    url = serve.url.replace("127.0.0.1", "localhost")
    ended = await in_thread(lambda: run_script(script, **away(tmp_path, url)))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert await stored(serve.url, "task:by-name") == [0, 1, 2]


async def test_a_message_has_its_event_and_attributes_and_is_stored_once(serve: Serve, tmp_path: Path) -> None:
    script = """
import fanline
for _ in range(2):
    fanline.publish("task:full", {"a": 1}, event="e", x={"b": 2}, deduplication_id="0123456789abcdef").wait(20)
"""
    ended = await in_thread(lambda: run_script(script, **away(tmp_path, serve.url)))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    async with fanline.Client(serve.url) as client:
        (message,) = (await client.history("task:full")).messages
    assert (message.event, message.data, message.x) == ("e", {"a": 1}, {"b": 2})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("'nowhere!', 1", "nowhere!"),
        ("'task:x', 1, url='ws://127.0.0.1:1/ws'", "was not published: cannot connect to ws://127.0.0.1:1/ws"),
        ("'task:x', 1, url='ftp://127.0.0.1/'", "not a WebSocket URL"),
        ("'task:x', 1, url='ws://127.0.0.1:1/ws', nats='127.0.0.1:1'", "give nats or url, not both"),
        ("'task:x', 'x' * 200_000", "was not published"),
    ],
)
async def test_what_is_not_published_says_why(serve: Serve, tmp_path: Path, call: str, says: str) -> None:
    script = f"""
import fanline
try:
    fanline.publish({call}).wait(20)
except fanline.NotPublished as error:
    print(error)
"""
    ended = await in_thread(lambda: run_script(script, **away(tmp_path, serve.url)))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert says in ended.stdout


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"FANLINE_URL": "wsx://127.0.0.1:1/ws"}, "FANLINE_URL: not a WebSocket URL"),
        ({"FANLINE_URL": "1"}, "no running `fanline serve` of yours has port 1"),
        ({"FANLINE_URL": "", "FANLINE_TOKEN": "anna's"}, "no running `fanline serve` found"),
    ],
)
def test_a_job_goes_on_without_the_server_that_its_environment_speaks_of_and_its_receipt_says_why(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    script = """
import fanline
receipt = fanline.publish("news:all", 1)
try:
    receipt.wait(20)
except fanline.NotPublished as error:
    print(error)
"""
    ended = run_script(script, **(away(tmp_path, "") | {"NATS_URL": "", **environ}))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert says in ended.stdout


async def test_under_gevent_it_says_what_works_there(serve: Serve, tmp_path: Path) -> None:
    ended = await in_thread(lambda: run_script(GEVENT, **away(tmp_path, serve.url)))
    assert "does not work under gevent's patches" in ended.stderr


async def test_a_message_survives_a_server_whose_worker_is_killed_and_is_stored_once_and_in_order(
    tmp_path: Path,
) -> None:
    with trio.fail_after(3 * SECONDS):
        async with (
            running_serve(workers=1) as serve,
            program(OUTAGE, {**os.environ, **away(tmp_path, serve.url)}) as process,
        ):
            assert await line_of(process) == "begun"
            for _ in range(2):
                killed = serve.worker_pids()
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                while not serve.is_whole(1) or {*killed} & {*serve.worker_pids()}:
                    await trio.sleep(0.05)
            assert process.stdin is not None
            await process.stdin.send_all(b"\n")
            count = int(await line_of(process))
            async with (
                fanline.Client(serve.url) as client,
                client.subscribe("task:stored", start=True) as messages,
            ):
                assert [(await anext(messages)).data for _ in range(count)] == list(range(count))
