"""`fanline serve --auth token` and the commands that make and show tokens, as people use them."""

import os
import signal
import stat
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.support.raw_client import connect_raw, upgrade_request
from tests.support.serve import Serve, running_serve, serve_environ

FANLINE = [sys.executable, "-P", "-m", "fanline"]


async def run(serve: Serve, *args: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(90):
        return await trio.run_process(
            [*FANLINE, *args],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=serve_environ(serve.directory) | environ,
        )


async def printed(serve: Serve, *args: str) -> str:
    done = await run(serve, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


async def status(serve: Serve, shown: str | None) -> int:
    """How a plain client with this token is answered."""
    async with connect_raw("127.0.0.1", serve.port) as client:
        await client.send(upgrade_request("/ws" if shown is None else f"/ws?token={shown}", subprotocol=None))
        return int((await client.stream.receive_some()).split()[1])


async def test_a_server_with_tokens_works_out_of_the_box_and_keeps_everybody_else_out() -> None:
    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token")) as serve:
            assert "tokens are required" in serve.ready_line
            assert await status(serve, None) == 401
            shown = await printed(serve, "token", "--sub", "anna", "--allow", "task:*:sub+pub")
            assert await status(serve, shown) == 101
            assert await status(serve, f"{shown[:-4]}AAAA") == 401
            url = f"ws://127.0.0.1:{serve.port}/ws"

            own = await run(serve, "pub", "doc:1", '"by the owner of the server"', "--url", url)
            assert own.returncode == 1  # a URL may be anybody's: nothing is signed for it
            done = await run(serve, "pub", "task:1", "{}", "--url", url, FANLINE_TOKEN=shown)
            assert (done.returncode, done.stderr) == (0, b"")
            done = await run(serve, "pub", "doc:1", "{}", "--url", url, FANLINE_TOKEN=shown)
            assert b"permission_denied" in done.stderr
            done = await run(serve, "tasks", "--once")  # the local server is ours
            assert (done.returncode, done.stderr) == (0, b"")


async def test_a_share_link_shows_one_channel_and_nothing_else() -> None:
    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token")) as serve:
            shown = await printed(serve, "share", "task:1", "--ttl", "5m", "--allow", "cancel")
            await printed(serve, "pub", "task:1", '{"hello": 1}')
            seen = await run(serve, "sub", "task:1", "--last", "1", "--count", "1", FANLINE_TOKEN=shown)
            assert (seen.returncode, b"hello" in seen.stdout) == (0, True)
            for refused in ("task:2", "user:anna", "system:all", "tasks:running"):
                done = await run(serve, "sub", refused, "--count", "1", FANLINE_TOKEN=shown)
                assert b"permission_denied" in done.stderr, refused


async def test_a_revoked_user_is_gone_from_every_worker_within_a_second_and_stays_out() -> None:
    with trio.fail_after(100):
        async with running_serve(2, ("--auth", "token")) as serve, AsyncExitStack() as stack:
            shown = await printed(serve, "token", "--sub", "anna", "--allow", "task:*:sub")
            clients = [await stack.enter_async_context(connect_raw("127.0.0.1", serve.port)) for _ in range(12)]
            for client in clients:
                await client.upgrade(Authorization=f"Bearer {shown}")
            await printed(serve, "revoke", "--user", "anna")
            with trio.fail_after(3):
                assert {await client.closed() for client in clients} == {(4401, "no valid token")}
            for pid in serve.worker_pids():
                os.kill(pid, signal.SIGKILL)
            assert await status(serve, shown) == 401
            assert await status(serve, await printed(serve, "token", "--sub", "anna")) == 101


async def test_the_secret_of_a_server_is_its_owners_alone_and_outlives_it() -> None:
    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token")) as serve:
            path = serve.directory / "data" / "tokens.secret"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert len(path.read_bytes()) >= 32
            assert path.read_bytes() not in serve.ready_line.encode()
            shown, secret = await printed(serve, "token", "--sub", "anna"), path.read_bytes()
            os.kill(serve.pid, signal.SIGTERM)
            await serve.start_again()
            assert path.read_bytes() == secret
            assert await status(serve, shown) == 101


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("token", "--allow", "task:*:read"), ("read", "presence")),
        (("token", "--ttl", "soon"), ("soon", "15m")),
        (("token", "--ttl", "0"), ("no time",)),
        (("token", "--sub", "a\x1bb"), ("control",)),
        (("share", "task"), ("task:42",)),
        (("share", "task:1", "--allow", "pub"), ("watched",)),
    ],
)
def test_a_wrong_argument_is_a_usage_error_in_a_sentence(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*FANLINE, *arguments], capture_output=True, check=False, env={**os.environ, "FANLINE_STATE_DIR": str(tmp_path)}
    )
    assert done.returncode == 2
    text = done.stderr.decode()
    assert text.count("\n") == 1
    assert [word for word in words if word not in text] == []
