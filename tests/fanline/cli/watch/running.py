"""A `fanline` process whose output is read as it arrives."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.support.programs.commands import FANLINE


class Running:
    """The process, and what it has said so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = self.err = ""
        self._grown = trio.Event()

    async def read(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        async for data in stream:
            setattr(self, name, getattr(self, name) + data.decode())
            self._grown.set()
            self._grown = trio.Event()

    async def wait_said(self, text: str, name: str = "err") -> None:
        while text not in getattr(self, name):
            await self._grown.wait()


@asynccontextmanager
async def running_fanline(*args: str, terminate: bool = False) -> AsyncIterator[Running]:
    """`fanline ARGS`; its end is waited for at the end of the block. `terminate`: it does not end by itself."""
    process = await trio.lowlevel.open_process(
        [*FANLINE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    running = Running(process)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.read, process.stdout, "out")
            nursery.start_soon(running.read, process.stderr, "err")
            yield running
            if terminate:
                process.terminate()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
