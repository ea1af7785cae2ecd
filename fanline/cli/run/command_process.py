"""A command that runs below us, with its stdin, stdout and stderr going through us."""

import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import trio

from fanline.errors import FanlineError

CHUNK_BYTES = 1 << 16
QUIET_SECONDS = 0.5


class StdinClosed(FanlineError):  # noqa: N818  # reads as what was found
    """The command takes no input, or none at the moment; str() says which."""


class Command:
    """It leads a session of its own, so that signals reach all that it started, and only by us.

    It has no terminal then: a program that insists on one says so, instead of hanging in the background.
    """

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        # What Trio gives on a system with file descriptors.
        assert isinstance(process.stdout, trio.lowlevel.FdStream)
        assert isinstance(process.stderr, trio.lowlevel.FdStream)
        self._process = process
        self.stdout, self.stderr = process.stdout, process.stderr
        self._stdin: trio.abc.SendStream = process.stdin
        self._stdin_lock = trio.Lock()
        self._stopping = False

    def signal(self, number: int) -> None:
        """Send a signal to the command and all its children."""
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as somebody else, as under sudo
            os.killpg(self._process.pid, number)

    async def wait(self) -> int:
        """Its exit code; -n if signal n has killed it."""
        return await self._process.wait()

    def end(self, number: int) -> None:
        """Send a signal that may end it, and wake it up if it is stopped: it would not notice."""
        self.signal(number)
        self.signal(signal.SIGCONT)

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL if it, or a child that holds its output, is still there after `grace` seconds.

        Returns when it is killed, and never if it is not: cancel it when the output has ended.
        """
        self._stopping = True
        self.end(signal.SIGTERM)
        await trio.sleep(grace)
        self.signal(signal.SIGKILL)
        self._stopping = False

    async def receive(self, stream: trio.lowlevel.FdStream) -> bytes | None:
        """What it writes next to its stdout or stderr; empty if nothing has come for half a second; None: the end.

        The end is when all who hold the stream have closed it. When the command itself has ended, or was killed, a
        child that it left behind is not waited for: the end is when nothing comes.
        """
        with trio.move_on_after(QUIET_SECONDS):
            return bytes(await stream.receive_some(CHUNK_BYTES)) or None
        if self._process.poll() is None or self._stopping:
            return b""
        # After a Ctrl-Z or a suspend the time is over at once: what lies in the pipe is read all the same.
        with suppress(BlockingIOError):
            return os.read(stream.fileno(), CHUNK_BYTES) or None
        return None

    async def type(self, data: bytes, patience: float = math.inf) -> None:
        """Write to its stdin in one piece, after so many seconds at most behind other input. Raises StdinClosed."""
        with trio.move_on_after(patience) as waiting:
            await self._stdin_lock.acquire()
        if waiting.cancelled_caught:
            raise StdinClosed("the command does not read its stdin")
        try:
            await self._stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise StdinClosed("the command's stdin is closed") from None
        finally:
            self._stdin_lock.release()

    async def feed(self) -> None:
        """Pass our own stdin on, to its end."""
        with suppress(StdinClosed):
            while data := await _read_stdin():
                await self.type(data)
        await self._stdin.aclose()


class Copy:
    """Our own stdout or stderr, to which a command's goes unchanged. A reader that has gone is no reason to end."""

    def __init__(self, file: TextIO | None) -> None:
        self._fd = None if file is None else file.fileno()  # None: it was closed when we started

    async def write(self, data: bytes) -> None:
        """In a thread, since it may be a file or a terminal: those cannot be waited for."""
        if self._fd is None or not data:
            return
        try:
            await trio.to_thread.run_sync(_write_all, self._fd, data, abandon_on_cancel=True)
        except OSError:
            self._fd = None


async def start_command(argv: Sequence[str]) -> Command:
    """Start a command, without a shell. OSError if that fails."""
    return Command(
        await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    )


def shell_code(status: int) -> int:
    """An exit code as a shell tells it: 128 + n after signal n."""
    return 128 - status if status < 0 else status


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever shares it with us has made it non-blocking
            select.select([], [fd], [])


async def _read_stdin() -> bytes:
    """The next of our stdin; empty at its end."""
    if sys.stdin is None:
        return b""
    fd = sys.stdin.fileno()
    while True:
        while _in_background(fd):  # noqa: ASYNC110  # a terminal tells nobody to whom it belongs
            await trio.sleep(QUIET_SECONDS)
        try:
            return await trio.to_thread.run_sync(os.read, fd, CHUNK_BYTES, abandon_on_cancel=True)
        except OSError:
            if not _in_background(fd):  # else the terminal refused, since `bg` came while we were reading
                return b""


def _in_background(fd: int) -> bool:
    """Whether it is a terminal that now belongs to other jobs; with SIGTTIN ignored, reading from it is an error."""
    return os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp()
