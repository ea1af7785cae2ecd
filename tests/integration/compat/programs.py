"""Programs of the old systems, in processes of their own, and the plain clients of their users."""

import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect

SECONDS = 30.0
_SAID_BESIDES = ("ping", "user_online", "user_offline")


class Program:
    """A running program, which says something in lines, and hears lines."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._buffer = b""

    async def line(self) -> str:
        """The next line that it prints."""
        with trio.fail_after(SECONDS):
            while b"\n" not in self._buffer:
                piece = await self._stdout.receive_some(4096)
                assert piece, "the program has ended"
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def says(self, *lines: str) -> None:
        """Wait until it has printed these, in any order and among others."""
        missing = set(lines)
        while missing:
            missing.discard(await self.line())

    async def say(self, line: str = "") -> None:
        await self._stdin.send_all(f"{line}\n".encode())


@asynccontextmanager
async def program(script: str, *args: str, environ: Mapping[str, str], cwd: Path) -> AsyncIterator[Program]:
    """Killed at the end of the block. It may use whatever `fanline.compat` and asyncio have."""
    source = "import asyncio, sys\nfrom fanline.compat import *\n" + textwrap.dedent(script)
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, "-P", "-u", "-c", source, *args]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, env=env, cwd=cwd, check=False, **pipes)
        yield Program(await nursery.start(start))
        nursery.cancel_scope.cancel()


def own_environ(directory: Path, **more: str) -> dict[str, str]:
    """For a server that a program starts."""
    return {
        "FANLINE_STATE_DIR": str(directory / "state"),
        "FANLINE_DATA_DIR": str(directory / "data"),
        "FANLINE_WORKERS": "1",
        "FANLINE_CONTROL": "false",
        **more,
    }


@asynccontextmanager
async def visitor(port: int, user: str | None = None) -> AsyncIterator[RawClient]:
    """A plain client that has said who it is."""
    async with connect("127.0.0.1", port, subprotocol=None) as client:
        if user is not None:
            answer = await asked(client, {"type": "connect", "user_id": user, "username": user.title()})
            assert answer["type"] == "connection_established", answer
        yield client


async def asked(client: RawClient, message: dict[str, Any]) -> dict[str, Any]:
    """What it is answered."""
    await client.say(message)
    with trio.fail_after(SECONDS):
        while (said := await client.json())["type"] in _SAID_BESIDES:
            pass
    return said


async def heard(client: RawClient, kind: str) -> dict[str, Any]:
    """The next message of this type."""
    with trio.fail_after(SECONDS):
        while (said := await client.json())["type"] != kind:
            pass
    return said
