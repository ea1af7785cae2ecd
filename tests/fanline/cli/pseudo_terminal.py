"""A `fanline` process in a pseudo-terminal of its own."""

import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_ON_OUR_TERMINAL = """
import fcntl, os, runpy, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("fanline", run_name="__main__")
"""


class Terminal:
    """The process, and every byte that the terminal was sent."""

    def __init__(self, process: trio.Process, master: int) -> None:
        self.process, self.master, self.received = process, master, b""

    @property
    def shown(self) -> str:
        """The text, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.received.decode("utf-8", "replace"))

    async def wait_shown(self, text: str) -> None:
        while text not in self.shown:
            await trio.lowlevel.wait_readable(self.master)
            self.received += os.read(self.master, 65536)

    async def read_to_end(self) -> None:
        """Read what comes until the process has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self.process.wait()
            nursery.cancel_scope.cancel()
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 65536):
                self.received += data
        except BlockingIOError:
            pass

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.master)
            self.received += os.read(self.master, 65536)


@asynccontextmanager
async def terminal(*args: str) -> AsyncIterator[Terminal]:
    """`fanline ARGS`; it is killed at the end of the block if it still runs."""
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "1000", "LINES": "30", "NO_COLOR": "1"}
    command = [sys.executable, "-P", "-c", _ON_OUR_TERMINAL, *args]
    process = await trio.lowlevel.open_process(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
    try:
        yield Terminal(process, master)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(slave)
        os.close(master)
