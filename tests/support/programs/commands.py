"""The `fanline` command, run beside a server as its user runs it."""

import subprocess
import sys

import trio

from tests.support.servers.serve import Serve, serve_environ

FANLINE = [sys.executable, "-P", "-m", "fanline"]


async def run_fanline(serve: Serve, *args: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """`fanline ARGS`, to its end, with what it has printed."""
    with trio.fail_after(90):
        return await trio.run_process(
            [*FANLINE, *args],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=serve_environ(serve.directory, env),
        )
