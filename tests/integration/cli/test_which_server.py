"""Two servers on one machine: each command says which one it takes, and can be told."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.serve_state import decode_state, encode_state
from tests.support.servers.serve import Serve, serve_environ, shared_serve

FANLINE = [sys.executable, "-P", "-m", "fanline"]


class Pair(NamedTuple):
    """Two servers of one user, whose state files are in one directory."""

    older: Serve
    newer: Serve
    directory: Path

    async def run(self, *args: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        env = serve_environ(self.directory) | environ
        for name in ("NATS_URL", "FANLINE_NATS"):
            env.pop(name, None)
        return await trio.run_process(
            [*FANLINE, *args], env=env, capture_stdout=True, capture_stderr=True, check=False, stdin=b""
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        older, newer = stack.enter_context(shared_serve()), stack.enter_context(shared_serve())
        directory = tmp_path_factory.mktemp("pair")
        (directory / "state").mkdir(mode=0o700)
        for started, serve in enumerate((older, newer)):
            name = f"serve-{serve.port}.json"
            state = decode_state((serve.state_directory / name).read_bytes())
            (directory / "state" / name).write_bytes(encode_state(msgspec.structs.replace(state, started=started)))
        yield Pair(older, newer, directory)


COMMANDS = [("nats-url",), ("tasks", "--once"), ("pub", "news:all", "1"), ("run", "--", "true"), ("probe",)]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
async def test_each_command_says_which_of_two_servers_it_takes_and_how_to_take_the_other(
    pair: Pair, args: tuple[str, ...]
) -> None:
    with trio.fail_after(60):
        ended = await pair.run(*args)
        told = await pair.run(*args, FANLINE_URL=pair.older.url)
    (line,) = [line for line in ended.stderr.decode().splitlines() if "started last" in line]
    assert line == (
        f"fanline: this is for {pair.newer.url}, the server that started last; --port or FANLINE_URL names another one "
        f"({pair.older.url})"
    )
    assert b"started last" not in told.stderr
    assert (ended.returncode, told.returncode) == (0, 0), (ended, told)


@pytest.mark.parametrize("way", ["--url", "--port", "FANLINE_URL", "port in FANLINE_URL"])
async def test_url_port_and_variable_name_the_same_server_to_every_command(pair: Pair, way: str) -> None:
    port = str(pair.older.port)
    flags = {"--url": ("--url", pair.older.url), "--port": ("--port", port)}.get(way, ())
    environ = {"FANLINE_URL": pair.older.url, "port in FANLINE_URL": port}
    given = {"FANLINE_URL": environ[way]} if way in environ else {}
    with trio.fail_after(90):
        url = await pair.run("nats-url", *flags, **given)
        assert url.stdout.decode().strip() == pair.older.producer_url, url.stderr
        task = f"by-{way.strip('-').replace(' ', '-').lower()}"
        ran = await pair.run("run", "--task", task, *flags, "--", "true", **given)
        assert ran.returncode == 0
        ended = await pair.run("tail", task, *flags, **given)
        assert (ended.returncode, ended.stderr.decode().count("completed")) == (0, 1), ended


async def test_a_port_that_no_local_server_has_is_said_with_those_that_there_are(pair: Pair) -> None:
    with trio.fail_after(60):
        for args in (("nats-url", "--port", "1"), ("tail", "x", "--port", "1"), ("run", "--port", "1", "--", "true")):
            ended = await pair.run(*args)
            (line,) = ended.stderr.decode().splitlines()
            assert ended.returncode == 1
            assert "no running `fanline serve` of yours has port 1 (there is " in line
            assert pair.older.url in line


async def test_a_command_still_runs_if_the_variable_names_a_server_elsewhere(pair: Pair) -> None:
    with trio.fail_after(60):
        ended = await pair.run("run", "--", "echo", "done", FANLINE_URL="wss://example.invalid/ws")
    assert (ended.returncode, ended.stdout) == (0, b"done\n")
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith("fanline: warning: no running `fanline serve` of yours has wss://example.invalid/ws")
    assert line.endswith("or set FANLINE_NATS; the command runs without viewers")


async def test_the_command_of_a_run_is_told_which_server_that_is(pair: Pair) -> None:
    with trio.fail_after(60):
        ended = await pair.run("run", "--port", str(pair.older.port), "--", "sh", "-c", "echo $FANLINE_URL")
    assert ended.stdout.decode().strip() == pair.older.url


@pytest.mark.parametrize("args", [("run", "--", "true"), ("nats-url",)], ids=" ".join)
async def test_what_is_advised_without_a_server_exists(tmp_path: Path, args: tuple[str, ...]) -> None:
    env = serve_environ(tmp_path)
    env.pop("NATS_URL", None)
    with trio.fail_after(60):
        ended = await trio.run_process([*FANLINE, *args], env=env, capture_stderr=True, check=False, stdin=b"")
        shown = await trio.run_process([*FANLINE, args[0], "--help"], env=env, capture_stdout=True)
    options = [word.strip("`,;.") for word in ended.stderr.decode().split() if word.startswith("--")]
    assert all(option in shown.stdout.decode() for option in options), ended.stderr


@pytest.mark.parametrize("name", ["url", "port"])
async def test_a_program_publishes_over_the_nats_of_the_local_server_in_the_variable_as_the_command_does(
    pair: Pair, name: str
) -> None:
    script = """
import fanline, sys
fanline.publish("task:of-older", sys.argv[1]).wait(20)
assert "fanline.publishing.websocket" not in sys.modules
"""
    env = serve_environ(pair.directory) | {"FANLINE_URL": str(getattr(pair.older, name))}
    with trio.fail_after(60):
        for variable in ("NATS_URL", "FANLINE_NATS"):
            env.pop(variable, None)
        await trio.run_process([sys.executable, "-P", "-c", script, name], env=env)
        async with fanline.Client(pair.older.url) as client:
            assert name in [message.data for message in (await client.history("task:of-older")).messages]
