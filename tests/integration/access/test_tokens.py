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

import fanline
from tests.support.programs.commands import FANLINE, run_fanline
from tests.support.raw_client import connect_raw, upgrade_request
from tests.support.servers.serve import Serve, running_serve


async def printed(serve: Serve, *args: str) -> str:
    done = await run_fanline(serve, *args)
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

            own = await run_fanline(serve, "pub", "doc:1", '"by the owner of the server"', "--url", url)
            assert own.returncode == 0  # the URL of a server of ours, which runs: a token is signed for it
            elsewhere = f"ws://127.0.0.2:{serve.port}/ws"  # where anybody may listen
            strange = await run_fanline(serve, "pub", "doc:1", "1", "--url", elsewhere)
            assert strange.returncode == 1
            done = await run_fanline(serve, "pub", "task:1", "{}", "--url", url, FANLINE_TOKEN=shown)
            assert (done.returncode, done.stderr) == (0, b"")
            done = await run_fanline(serve, "pub", "doc:1", "{}", "--url", url, FANLINE_TOKEN=shown)
            assert b"permission_denied" in done.stderr
            done = await run_fanline(serve, "tasks", "--once")  # the local server is ours
            assert (done.returncode, done.stderr) == (0, b"")


_PUBLISHES = """
import fanline, sys
channel, *token = sys.argv[1:]
try:
    fanline.publish(channel, {}, token=token[0] if token else None).wait(20)
except fanline.NotPublished as error:
    sys.exit(str(error))
"""


async def test_who_publishes_with_a_token_has_its_rights_even_where_the_nats_of_the_server_is_known() -> None:
    async def ended(serve: Serve, environ: dict[str, str], *command: str) -> subprocess.CompletedProcess[bytes]:
        env = {**serve.environ, "FANLINE_URL": serve.url, **environ}
        return await trio.run_process([sys.executable, "-P", *command], env=env, capture_stderr=True, check=False)

    program, command = ("-c", _PUBLISHES), ("-m", "fanline", "pub")

    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token")) as serve:
            shown = await printed(serve, "token", "--sub", "anna", "--allow", "task:*:sub+pub")
            by_variable = {"FANLINE_TOKEN": shown}
            for nats in ({"FANLINE_NATS": "", "NATS_URL": ""}, {"FANLINE_NATS": serve.producer_url}):
                assert (await ended(serve, nats, *program, "doc:1")).returncode == 0
                for environ, begins, ends in (
                    (nats, program, (shown,)),
                    (nats | by_variable, program, ()),
                    (nats | by_variable, command, ("{}",)),
                ):
                    assert (await ended(serve, environ, *begins, "task:1", *ends)).returncode == 0
                    refused = await ended(serve, environ, *begins, "doc:1", *ends)
                    assert (refused.returncode, b"permission_denied" in refused.stderr) == (1, True)
            over_nats = await ended(serve, by_variable, *command, "doc:1", "{}", "--nats", serve.producer_url)
            assert over_nats.returncode == 0


def test_a_token_and_a_nats_contradict_each_other() -> None:
    with pytest.raises(fanline.NotPublished, match="give nats or token, not both"):
        fanline.publish("news:all", 1, nats="nats://127.0.0.1:1", token="anna's")


async def test_a_share_link_shows_one_channel_and_nothing_else() -> None:
    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token")) as serve:
            shown = await printed(serve, "share", "task:1", "--ttl", "5m", "--allow", "cancel")
            await printed(serve, "pub", "task:1", '{"hello": 1}')
            seen = await run_fanline(serve, "sub", "task:1", "--last", "1", "--count", "1", FANLINE_TOKEN=shown)
            assert (seen.returncode, b"hello" in seen.stdout) == (0, True)
            for refused in ("task:2", "user:anna", "system:all", "tasks:running"):
                done = await run_fanline(serve, "sub", refused, "--count", "1", FANLINE_TOKEN=shown)
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
        (("token", "--ttl", "0"), ("is not a time",)),
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
