"""Programs that speak by lines on stdout, and listen on stdin."""

import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio


class Lines:
    """What a program prints, line by line."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""

    async def receive(self) -> str:
        """The next line. EndOfChannel if the program has ended."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            data = await self._process.stdout.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    async def type(self, line: str) -> None:
        """Give the program a line."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def rest(self) -> list[str]:
        """All lines until the program ends, which it must do without an error."""
        lines = []
        try:
            while True:
                lines.append(await self.receive())
        except trio.EndOfChannel:
            assert await self._process.wait() == 0
        return lines


@asynccontextmanager
async def running(command: Sequence[str], environ: Mapping[str, str]) -> AsyncIterator[trio.Process]:
    """A program with pipes to its stdin and stdout; what is left of it afterwards is killed."""
    process = await trio.lowlevel.open_process(
        [*command], env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
