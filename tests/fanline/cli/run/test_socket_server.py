"""The socket of `fanline run`: whatever comes in, its sender alone is harmed."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

import fanline
from fanline.cli.run import socket_server
from fanline.cli.run.child_reports import ChildReports
from fanline.cli.run.requests import MAX_LINE_BYTES, REQUESTS, BadRequest, Request, read_request
from fanline.cli.run.socket_server import MAX_CONNECTIONS, MAX_QUESTIONS, ListeningSocket
from tests.support.paths import ROOT
from tests.support.seeds import new_seed

pytestmark = pytest.mark.process
GOOD = b'{"verb": "progress", "percent": 40, "id": 7}\n'


@asynccontextmanager
async def served() -> AsyncIterator[ListeningSocket]:
    """The socket of a task whose events go nowhere."""
    listening = ListeningSocket()
    try:
        async with fanline.Task("job", nats="127.0.0.1:1", linger=0) as task, trio.open_nursery() as nursery:
            nursery.start_soon(listening.serve, ChildReports(task))
            yield listening
            nursery.cancel_scope.cancel()
    finally:
        listening.close()


async def connect(listening: ListeningSocket) -> trio.SocketStream:
    return await trio.open_unix_socket(listening.path)


async def reply(stream: trio.SocketStream) -> dict[str, Any]:
    received = b""
    while not received.endswith(b"\n"):
        data = await stream.receive_some(65536)
        assert data, received
        received += data
    found: dict[str, Any] = json.loads(received)
    return found


async def ask_good(listening: ListeningSocket) -> None:
    """Another client is served."""
    async with await connect(listening) as stream:
        await stream.send_all(GOOD)
        assert await reply(stream) == {"id": 7, "ok": True}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\xff\xfe\n", "not a request"),
        (b"{\n", "not a request"),
        (b"[]\n", "not a request"),
        (b'{"verb": "sudo", "id": "a"}\n', "sudo"),
        (b'{"verb": "progress", "percent": 140, "id": "a"}\n', "percent"),
        (b'{"verb": "progress", "percent": "40", "id": "a"}\n', "percent"),
        (b'{"verb": "progress", "present": 4, "id": "a"}\n', "present"),
        (b'{"verb": "log", "id": "a"}\n', "text"),
        (b'{"verb": "log", "text": "x", "stream": "stdlog", "id": "a"}\n', "stream"),
        (b'{"verb": "ask", "text": "x", "deadline": 0, "id": "a"}\n', "deadline"),
        (
            b'{"verb": "ask", "text": "x", "options": ' + json.dumps(["x"] * 1000).encode() + b', "id": "a"}\n',
            "options",
        ),
        (b"[" * 10_000 + b"\n", "not a request"),
    ],
)
async def test_a_line_that_is_no_request_is_refused_and_the_next_one_is_carried_out(line: bytes, why: str) -> None:
    with trio.fail_after(30):
        async with served() as listening, await connect(listening) as stream:
            await stream.send_all(line)
            refusal = await reply(stream)
            await stream.send_all(GOOD)
            assert await reply(stream) == {"id": 7, "ok": True}
    assert (refusal["ok"], refusal["code"]) == (False, "bad_request")
    assert refusal.get("id") == ("a" if b'"a"' in line else None)
    assert why in refusal["message"]


async def test_garbage_of_any_kind_harms_nobody_else() -> None:
    chance = Random(new_seed())
    with trio.fail_after(60):
        async with served() as listening:
            for _ in range(50):
                async with await connect(listening) as stream:
                    await stream.send_all(chance.randbytes(chance.randrange(5000)))
            await ask_good(listening)


async def test_a_line_without_an_end_ends_its_connection_alone() -> None:
    with trio.fail_after(60):
        async with served() as listening, await connect(listening) as stream:
            with pytest.raises(trio.BrokenResourceError):  # while it is sent, or after
                for _ in range(4):
                    await stream.send_all(b"x" * MAX_LINE_BYTES)
                raise trio.BrokenResourceError
            await ask_good(listening)


async def test_connections_beyond_the_bound_wait_until_others_are_closed() -> None:
    with trio.fail_after(60):
        async with served() as listening:
            idle = [await connect(listening) for _ in range(MAX_CONNECTIONS)]
            await trio.testing.wait_all_tasks_blocked()
            async with await connect(listening) as late:
                await late.send_all(GOOD)
                with trio.move_on_after(0.2):
                    await late.receive_some(1)
                    raise AssertionError("more connections are served than the bound")
                await idle[0].aclose()
                assert await reply(late) == {"id": 7, "ok": True}
            for stream in idle:
                await stream.aclose()


async def test_a_client_that_never_reads_its_replies_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.cli.run.socket_server.SEND_SECONDS", 0.2)
    with trio.fail_after(60):
        async with served() as listening, await connect(listening) as stream:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(GOOD * 1000)
            await ask_good(listening)


async def test_questions_of_one_connection_are_bounded() -> None:
    with trio.fail_after(30):
        async with served() as listening, await connect(listening) as stream:
            await stream.send_all(b'{"verb": "ask", "text": "x", "id": 1}\n' * (MAX_QUESTIONS + 1))
            assert (await reply(stream))["code"] == "bad_request"


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
async def test_who_has_sent_its_last_line_still_gets_the_answer_unless_it_has_hung_up(half: bool) -> None:
    with trio.fail_after(30):
        async with served() as listening:
            stream = await connect(listening)
            await stream.send_all(b'{"verb": "ask", "text": "first", "deadline": 0.1, "id": 1}')
            if half:
                await stream.send_eof()
                assert (await reply(stream))["code"] == "expired"
                await stream.aclose()
                return
            await stream.aclose()
            async with await connect(listening) as other:  # its turn comes, since the first question is withdrawn
                await other.send_all(b'{"verb": "ask", "text": "second", "deadline": 0.1, "id": 2}\n')
                assert (await reply(other))["code"] == "expired"


def test_the_page_of_the_socket_has_every_request_and_every_field() -> None:
    page = (ROOT / "docs" / "reference" / "task-socket.md").read_text(encoding="utf-8")
    for request in REQUESTS:
        tag = request.__struct_config__.tag
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{tag}` |")]
        assert all(f"`{field}`" in row for field in request.__struct_fields__ if field != "id"), tag


def test_every_example_on_the_page_of_the_socket_is_a_request() -> None:
    page = (ROOT / "docs" / "reference" / "task-socket.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith('{"verb"')]
    assert len(lines) > 5
    for line in lines:
        read_request(line.encode())
    with pytest.raises(BadRequest):
        read_request(b'{"verb": "none"}')


async def test_what_was_sent_before_the_command_ended_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that only report close their connection, and end, without having read anything."""
    lines = b"".join(b'{"verb": "log", "text": "%d"}\n' % number for number in range(1000))
    applied: list[Request] = []
    monkeypatch.setattr(ChildReports, "apply", lambda self, request: applied.append(request))
    async with served() as listening:
        waiting = await connect(listening)
        await ask_good(listening)
        for _ in range(3):  # none of which is accepted before the end
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listening.path)
                client.sendall(lines)
        with trio.fail_after(20):
            await listening.finish()
        await waiting.aclose()
    assert len(applied) == 1 + 3 * 1000


async def test_a_program_that_goes_on_reporting_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_server, "FINISH_SECONDS", 0.2)
    async with served() as listening, trio.open_nursery() as nursery:

        async def report_for_ever() -> None:
            async with await connect(listening) as stream:
                while True:
                    await stream.send_all(b'{"verb": "pause"}\n{"verb": "resume"}\n')

        nursery.start_soon(report_for_ever)
        await ask_good(listening)
        await listening.finish()
        nursery.cancel_scope.cancel()


def test_a_long_temporary_directory_does_not_prevent_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    listening = ListeningSocket()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listening.path)
        assert Path(listening.path).stat().st_mode & 0o777 == 0o600
    finally:
        listening.close()
    assert not Path(listening.path).exists()
