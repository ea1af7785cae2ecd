"""The locust users, started from the command line."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.support.paths import ROOT
from tests.support.servers.serve import Serve, running_serve, wait_until

LOCUST = (sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary")


async def locust(*args: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[bytes]":
    """A finished headless run from the root of the repository, with all output in stdout."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FANLINE_")}
    with trio.fail_after(60):
        return await trio.run_process(
            [*LOCUST, *args],
            cwd=ROOT,
            env=inherited | dict(environ),
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
        )


def established(port: int) -> int:
    """Open connections to a local port, from the columns local address and state of /proc/net/tcp."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def by_state_file(serve: Serve) -> dict[str, str]:
    return {"FANLINE_STATE_DIR": str(serve.state_directory)}


@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_the_users_run_five_seconds_against_a_real_server_and_lose_nothing(codec: str) -> None:
    async with running_serve() as serve:
        args = ("-u", "20", "-r", "20", "-t", "5s", "--fanline-codec", codec)
        result = await locust(*args, environ=by_state_file(serve))
    output = result.stdout.decode()
    assert result.returncode == 0, output
    assert "Traceback" not in output
    messages = next(line.split() for line in output.splitlines() if line.split()[:2] == ["WS", "message"])
    assert int(messages[2]) > 100, output


async def test_lost_messages_are_failures_and_show_in_the_exit_code() -> None:
    async with running_serve(workers=1) as heard, running_serve(workers=1) as spoken_to:
        environ = {"FANLINE_LOAD_URL": heard.url, "FANLINE_LOAD_NATS": spoken_to.producer_url}
        result = await locust("-u", "5", "-r", "5", "-t", "3s", environ=environ)
    output = result.stdout.decode()
    assert result.returncode == 1, output
    assert "messages lost at the end" in output
    assert "Traceback" not in output


async def test_a_server_that_goes_away_is_a_failure_and_no_traceback() -> None:
    async with running_serve() as serve, trio.open_nursery() as nursery:

        async def end_once_used() -> None:
            await wait_until(lambda: established(serve.port) == 4, 30)
            await serve.child.stop(10)

        nursery.start_soon(end_once_used)
        result = await locust("-u", "5", "-r", "5", "-t", "5s", environ=by_state_file(serve))
    output = result.stdout.decode()
    assert result.returncode == 1, output
    assert "WebSocketError" in output
    assert "Traceback" not in output


async def test_without_a_server_locust_says_what_to_do(tmp_path: Path) -> None:
    result = await locust("-u", "1", "-t", "1s", environ={"FANLINE_STATE_DIR": str(tmp_path)})
    assert result.returncode == 1
    assert result.stdout.decode().splitlines()[-1].startswith("locust: no running server found: start one with")
