"""`fanline.publish` in programs of a few lines, on a real NATS that goes away and comes back."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support.nats.client import connect_nats
from tests.support.nats.server import running_nats
from tests.support.paths import ROOT
from tests.support.servers.serve import running_serve
from tests.support.tasks.stored import SECONDS, StoredTasks, in_thread, run_script, running_stream

CHANNELS = ("task:stored", "news:passing")
PLAIN = """
import fanline
for number in range(3):
    fanline.publish("task:stored", number).wait(20)
    fanline.publish("news:passing", number).wait(20)
"""
ASYNCIO = """
import asyncio, fanline

async def main():
    await asyncio.gather(*(fanline.publish("task:stored", number) for number in range(3)))
    await asyncio.wait_for(fanline.publish("news:passing"), 20)

asyncio.run(main())
"""
TRIO = """
import fanline, trio

async def main():
    for number in range(3):
        await fanline.publish("task:stored", number)
    await fanline.publish("news:passing")

trio.run(main)
"""
THREADS = """
import fanline, threading

def job(number):
    fanline.publish("task:stored", number).wait(20)

for number in range(3):
    thread = threading.Thread(target=job, args=[number])
    thread.start()
    thread.join()
assert sum(thread.name == "fanline publisher" for thread in threading.enumerate()) == 1
"""
GEVENT = """
from gevent import monkey; monkey.patch_all()
import fanline, gevent

def job(number):
    fanline.publish("task:stored", number).wait(20)

for number in range(3):
    gevent.spawn(job, number).get()
"""
FIRE_AND_FORGET = """
import fanline
for number in range(3):
    fanline.publish("task:stored", number)
"""
MULTIPROCESSING = """
import fanline, multiprocessing

def job(number):
    fanline.publish("task:stored", number)

if __name__ == "__main__":
    fanline.publish("news:passing").wait(20)
    for number in range(3):
        process = multiprocessing.get_context("fork").Process(target=job, args=[number])
        process.start()
        process.join()
"""


async def run(nats_url: str, script: str) -> tuple[int, str, str]:
    ended = await in_thread(lambda: run_script(textwrap.dedent(script), NATS_URL=nats_url))
    return ended.returncode, ended.stdout, ended.stderr


async def values(nats: StoredTasks, task: str = "stored") -> list[object]:
    return [envelope["d"] for envelope in await nats.stored(task)]


@pytest.mark.parametrize("script", [PLAIN, ASYNCIO, TRIO, THREADS, GEVENT, FIRE_AND_FORGET, MULTIPROCESSING])
async def test_every_kind_of_program_publishes_and_what_is_durable_is_stored_when_it_says_so(script: str) -> None:
    async with running_stream() as (_, nats):
        assert await run(nats.url, script) == (0, "", "")
        assert await values(nats) == [0, 1, 2]


async def test_a_message_has_the_event_the_extra_attributes_and_the_data_as_json_holds_it() -> None:
    async with running_stream() as (_, nats):
        script = """
            import datetime, fanline
            once = "0123456789abcdef"
            for _ in range(2):
                receipt = fanline.publish(
                    "task:stored", {"day": datetime.date(2026, 1, 2)}, event="e", x={"a": 1}, deduplication_id=once
                )
                receipt.wait()
                assert receipt.deduplication_id == once
        """
        assert await run(nats.url, script) == (0, "", "")
        assert await nats.stored("stored") == [{"v": 1, "e": "e", "d": {"day": "2026-01-02"}, "x": {"a": 1}}]


async def test_a_forked_process_publishes_by_itself_and_knows_nothing_of_its_parents_messages() -> None:
    script = """
        import fanline, os
        fanline.publish("task:stored", "parent").wait(20)
        before = fanline.publish("nowhere:1", "parent", nats="nats://127.0.0.1:1")
        child = os.fork()
        if not child:
            try:
                before.wait(20)
            except fanline.NotPublished as error:
                print(error, flush=True)
            fanline.publish("task:stored", "child").wait(20)
            os._exit(0)
        os.waitpid(child, 0)
        fanline.publish("task:stored", "parent again").wait(20)
        os._exit(0)
    """
    async with running_stream() as (_, nats):
        code, stdout, _ = await run(nats.url, script)
        assert (code, stdout) == (
            0,
            "the message on nowhere:1 was handed over before this process was forked: ask in its parent\n",
        )
        assert await values(nats) == ["parent", "child", "parent again"]


@asynccontextmanager
async def program(script: str, environ: Mapping[str, str]) -> AsyncIterator[trio.Process]:
    """A program that runs beside the test; each line that it reads and writes is a step."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(script)]
    env = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ}
    start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, check=False)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(start)
        yield process
        nursery.cancel_scope.cancel()


async def line_of(process: trio.Process) -> str:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        piece = await process.stdout.receive_some(1)
        assert piece, "the program has ended"
        line += piece
    return line.decode().strip()


OUTAGE = """
    import fanline, sys, threading
    receipts = [fanline.publish("task:stored", number) for number in range(500)]
    receipts[0].wait()
    print("begun")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    number = 500
    while not stop.wait(0.01):
        receipts.append(fanline.publish("task:stored", number))
        number += 1
    for receipt in receipts:
        receipt.wait()
    print(number)
"""


async def test_a_durable_message_survives_a_nats_that_is_killed_and_is_stored_once_and_in_order() -> None:
    with trio.fail_after(3 * SECONDS):
        async with running_stream() as (server, nats), program(OUTAGE, {"NATS_URL": nats.url}) as process:
            assert await line_of(process) == "begun"
            for _ in range(3):
                server.kill()
                await trio.sleep(0.2)  # messages are handed over meanwhile
                await server.start()
                await trio.sleep(0.2)
            assert process.stdin is not None
            await process.stdin.send_all(b"\n")
            count = int(await line_of(process))
            async with reading(server.url) as again:
                assert await values(again) == list(range(count))


async def test_a_server_that_is_killed_is_found_again_though_its_nats_has_another_port_then() -> None:
    with trio.fail_after(3 * SECONDS):
        async with running_serve(1) as serve, program(OUTAGE, serve.environ) as process:
            assert await line_of(process) == "begun"
            before = serve.nats_url
            os.kill(serve.pid, signal.SIGKILL)
            (serve.directory / "data" / "nats.json").unlink()  # where port and passwords are kept
            await serve.start_again()
            assert serve.nats_url != before
            assert process.stdin is not None
            await process.stdin.send_all(b"\n")
            count = int(await line_of(process))
            async with reading(serve.engine_url) as nats:
                assert await values(nats) == list(range(count))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[StoredTasks]:
    async with connect_nats(url) as client:
        yield StoredTasks(url, "", client)


async def test_where_no_nats_is_the_error_says_what_to_do_and_an_ignored_failure_is_logged(tmp_path: object) -> None:
    script = """
        import fanline, logging
        logging.basicConfig(format="%(message)s")
        fanline.publish("news:1")
        try:
            fanline.publish("news:1").wait(20)
        except fanline.NotPublished as error:
            print(error)
    """
    ended = await in_thread(
        lambda: run_script(textwrap.dedent(script), FANLINE_STATE_DIR=str(tmp_path), NATS_URL="", FANLINE_NATS="")
    )
    hint = "no NATS is known: start `fanline serve` on this machine, set FANLINE_NATS, or pass nats="
    failure = f"the message on news:1 was not published: {hint} (after 2 seconds)"
    assert ended.stdout == f"{failure}\n"
    assert ended.stderr.splitlines() == [f"messages are waiting for NATS: {hint}", failure]


async def test_what_nats_does_not_permit_is_said_at_once_and_the_rest_is_published() -> None:
    config = """
        jetstream: enabled
        authorization: { users: [{ user: u, password: p, permissions: {
            publish: ["fanline.pub.news.>", "$JS.API.STREAM.NAMES"], subscribe: "_INBOX.>" } }] }
    """
    script = """
        import fanline
        try:
            fanline.publish("secret:1").wait(20)
        except fanline.NotPublished as error:
            print(error)
        fanline.publish("news:1").wait(20)
    """
    async with running_nats(config=config) as server:
        code, stdout, stderr = await run(server.url.replace("//", "//u:p@"), script)
    denied = "NATS does not permit this user to publish to fanline.pub.secret.1"
    assert (code, stdout, stderr) == (0, f"the message on secret:1 was not published: {denied}\n", "")


async def test_more_messages_than_may_wait_are_refused_and_the_program_ends_in_time() -> None:
    script = """
        import fanline, time
        began = time.monotonic()
        receipts = [fanline.publish("news:1", "x" * 100_000, nats="nats://127.0.0.1:1") for _ in range(200)]
        print(sum(receipt.done for receipt in receipts))
        try:
            receipts[-1].wait()
        except fanline.NotPublished as error:
            print(str(error).partition(": ")[2])
        print(time.monotonic() - began < 20)
    """
    code, stdout, _ = await run("", script)
    refused, why, in_time = stdout.splitlines()
    assert (code, int(refused), in_time) == (0, 200 - (16 << 20) // 100_070, "True")
    assert why.endswith("bytes are waiting for NATS already: wait for some of them")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('"news"', "not a channel name: 'news' (expected namespace:id, as in task:42)"),
        ('"news:1", object()', "data: Encoding objects of type object is unsupported"),
        ('"news:1", x={"A": 1}', "x: 'A' is no key"),
        ('"news:1", deduplication_id="short"', "dd: a de-duplication id has 16 to 128"),
        ('"news:1", nats="http://x"', "http://x"),
    ],
)
async def test_what_can_never_be_published_is_refused_at_the_call(arguments: str, said: str) -> None:
    script = f"""
        import fanline
        try:
            fanline.publish({arguments})
        except fanline.FanlineError as error:
            print(error)
    """
    code, stdout, stderr = await run("nats://127.0.0.1:1", script)
    assert (code, stderr) == (0, "")
    assert said in stdout
