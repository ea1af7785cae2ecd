"""The `fanline` command as people and scripts run it: real processes, a real server."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from tests.support.nats.client import connect_nats
from tests.support.programs.commands import FANLINE, run_fanline
from tests.support.servers.serve import Serve, running_serve, serve_environ, shared_serve


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """A server for tests that leave it as it was."""
    with shared_serve() as shared:
        yield shared


@asynccontextmanager
async def _listening(serve: Serve, *args: str) -> AsyncIterator[trio.Process]:
    """`fanline sub ARGS`, once it reports that it is listening."""
    process = await trio.lowlevel.open_process(
        [*FANLINE, "sub", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=serve_environ(serve.directory),
    )
    try:
        assert process.stderr is not None
        said = b""
        while not said.endswith(b"\n"):
            data = await process.stderr.receive_some(4096)
            assert data, said
            said += data
        assert said.startswith(b"fanline: listening to "), said
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def _rest(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([bytes(data) async for data in stream])


async def test_pub_and_sub_find_the_local_server_by_themselves() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, _listening(serve, "news:all", "doc:42", "--count", "2") as process:
            assert (await run_fanline(serve, "pub", "news:all", '{"title": "hello"}')).returncode == 0
            # Two processes: the second starts when NATS has accepted the first one's message.
            published = await run_fanline(serve, "pub", "doc:42", '{"page": 40}', "--event", "document_edit")
            assert (published.returncode, published.stdout, published.stderr) == (0, b"", b"")
            assert await process.wait() == 0
            printed = (await _rest(process.stdout)).decode()
    assert sorted(printed.splitlines()) == [
        'doc:42  document_edit  {"page":40}',
        'news:all  -  {"title":"hello"}',
    ]


async def test_nats_url_prints_all_that_a_producer_needs() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve:
            printed = (await run_fanline(serve, "nats-url")).stdout.decode().strip()
            assert printed == serve.producer_url
            async with connect_nats(printed) as nats:
                assert "seq" in await nats.ask("fanline.pub.task.1", b"1")
            engine = (await run_fanline(serve, "nats-url", "--engine")).stdout.decode().strip()
            async with connect_nats(engine) as nats:
                await nats.api("STREAM.INFO")
        gone = await run_fanline(serve, "nats-url")
    assert gone.returncode == 1
    assert gone.stderr.startswith(b"fanline: error: no running `fanline serve` found")


async def test_lines_of_stdin_arrive_in_order_as_envelopes_through_nats_and_websocket() -> None:
    lines = b"".join(b"%d\n" % number for number in range(2500))
    with trio.fail_after(90):
        async with running_serve() as serve:
            options = ("--count", "2503", "--json", "--codec", "cbor")
            async with _listening(serve, "news:all", *options) as process, trio.open_nursery() as nursery:
                output: list[bytes] = []

                async def read() -> None:
                    output.append(await _rest(process.stdout))

                nursery.start_soon(read)
                assert (await run_fanline(serve, "pub", "news:all", "-", stdin=lines)).returncode == 0
                url = ("--url", serve.url)
                ended = await run_fanline(serve, "pub", "news:all", "-", *url, stdin=b'"a"\n\n"b"\n"no newline"')
                assert (ended.returncode, ended.stderr) == (0, b"")
                assert await process.wait() == 0
    envelopes = [msgspec.json.decode(line) for line in output[0].splitlines()]
    assert [envelope["d"] for envelope in envelopes] == [*range(2500), "a", "b", "no newline"]
    assert {(envelope["t"], envelope["c"]) for envelope in envelopes} == {("pub", "news:all")}


async def test_what_pub_has_published_to_a_durable_channel_is_stored_and_sub_begins_where_it_is_told_to() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve:
            lines = b"".join(b"%d\n" % number for number in range(1200))
            assert (await run_fanline(serve, "pub", "task:1", "-", stdin=lines)).returncode == 0
            os.kill(serve.nats_pid(), signal.SIGKILL)  # what is stored survives
            whole = await _sub(serve, "task:1", "--from-start", "--count", "1000")
            newest = await _sub(serve, "task:1", "--last", "2", "--count", "2")
            position = ("--offset", str(newest[0]["o"]), "--epoch", newest[0]["ep"])
            rest = await _sub(serve, "task:1", *position, "--count", "1")
            elsewhere = await _sub(serve, "task:1", *position[:2], "--epoch", "other", "--count", "1")
    assert [envelope["d"] for envelope in whole if envelope["t"] == "pub"] == list(range(1000))
    assert [envelope["d"] for envelope in newest] == [1198, 1199]
    assert rest == newest[1:]
    assert (elsewhere[0]["t"], elsewhere[0]["d"]["reason"], elsewhere[1]["d"]) == ("gap", "epoch", 0)


async def _sub(serve: Serve, *args: str) -> list[dict[str, Any]]:
    """The envelopes that `fanline sub ARGS --json` prints; retried until the bus is available again."""
    while True:
        ended = await run_fanline(serve, "sub", *args, "--json")
        if ended.returncode == 0:
            return [msgspec.json.decode(line) for line in ended.stdout.splitlines()]
        assert b"unavailable" in ended.stderr, ended.stderr


async def test_the_same_deduplication_id_is_one_message_per_channel_on_each_way_to_publish(serve: Serve) -> None:
    once = ("--deduplication-id", "build-42-finished")
    with trio.fail_after(90):
        url = ("--url", serve.url)
        for args in (
            ("task:1", "1"),
            ("task:2", "2"),
            ("task:1", "3"),
            ("task:1", "4", *url),
            ("task:1", "5", *url),
        ):
            assert (await run_fanline(serve, "pub", *args, *once)).returncode == 0
        assert (await run_fanline(serve, "pub", "task:1", "6")).returncode == 0
        found = await _sub(serve, "task:1", "--from-start", "--count", "3")
        other = await _sub(serve, "task:2", "--from-start", "--count", "1")
    assert ([envelope["d"] for envelope in found], other[0]["d"]) == ([1, 4, 6], 2)


async def test_errors_at_run_time_are_one_line_and_exit_code_1(serve: Serve) -> None:
    with trio.fail_after(90):
        wrong_token = serve.nats_url.replace("nats://", "nats://wrong@")
        cases = {
            "Authorization Violation": await run_fanline(serve, "pub", "news:all", "1", "--nats", wrong_token),
            "line 2 of stdin is not JSON": await run_fanline(serve, "pub", "news:all", "-", stdin=b"1\n{\n"),
            "cannot connect to ws://127.0.0.1:1/ws": await run_fanline(
                serve, "sub", "news:all", "--url", "ws://127.0.0.1:1/ws"
            ),
        }
    for said, ended in cases.items():
        error = ended.stderr.decode()
        assert ended.returncode == 1, error
        assert error.startswith("fanline: error: ")
        assert error.count("\n") == 1
        assert said in error


async def test_ctrl_c_ends_sub_without_a_traceback(serve: Serve) -> None:
    with trio.fail_after(90):
        for args, code in (((), 0), (("--count", "5"), 130)):
            async with _listening(serve, "news:all", *args) as process:
                process.send_signal(signal.SIGINT)
                assert await process.wait() == code
                assert await _rest(process.stderr) == b""


async def test_sub_ends_silently_when_its_reader_has_gone(serve: Serve) -> None:
    with trio.fail_after(90):
        async with _listening(serve, "news:all") as process:
            assert process.stdout is not None
            await process.stdout.aclose()
            assert (await run_fanline(serve, "pub", "news:all", "1")).returncode == 0
            assert await process.wait() == 0
            assert await _rest(process.stderr) == b""


async def test_serve_passes_all_arguments_on_including_help() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            shown = await run_fanline(serve, "serve", "--help")
            refused = await run_fanline(serve, "serve", "--port", "no-port")
    assert shown.returncode == 0
    assert b"--data-dir" in shown.stdout
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"fanline: error: ")


async def test_the_demo_ends_by_itself_with_a_summary_and_loses_nothing() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            ended = await run_fanline(serve, "demo", "--seconds", "3")
            left = list(serve.state_directory.glob("serve-*.json"))
    output = ended.stdout.decode()
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == b""
    assert "In another terminal: fanline tail task:build-1" in output
    summary = output.strip().splitlines()[-1]
    assert " tasks finished: " in summary
    assert ", 0 lost, " in summary
    assert len(left) == 1, "the demo's own server has left its state file behind"


async def test_ctrl_c_ends_the_demo_and_its_server() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            process = await trio.lowlevel.open_process(
                [*FANLINE, "demo"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=serve_environ(serve.directory),
                start_new_session=True,
            )
            assert process.stdout is not None
            seen = b""
            while b"In another terminal" not in seen:
                data = await process.stdout.receive_some(4096)
                assert data
                seen += data
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does
            rest = await _rest(process.stdout)
            assert await process.wait() == 0
            assert await _rest(process.stderr) == b""
            left = list(serve.state_directory.glob("serve-*.json"))
    assert b"tasks finished" in rest
    assert len(left) == 1
