"""A command as our child process, with its stdin, stdout and stderr going through us, by pipes or a pseudo-terminal."""

import errno
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TextIO

import trio

from fanline.base.task_socket import SOCKET_VARIABLE, TASK_VARIABLE
from fanline.cli.manage.token import SECRET_VARIABLE
from fanline.cli.run.terminal.pseudo_terminal import (
    END_OF_INPUT,
    INTERRUPT,
    SUSPEND,
    PseudoTerminal,
    open_pseudo_terminal,
)
from fanline.cli.terminal import note
from fanline.errors import FanlineError
from fanline.local import TOKEN_VARIABLE
from fanline.producer.running_task import StreamName

CHUNK_BYTES = 1 << 16
_OURS_ALONE = (TOKEN_VARIABLE, SECRET_VARIABLE, TASK_VARIABLE, SOCKET_VARIABLE)
"""What acts for a viewer, and the task that we ourselves may be a part of: the command's own is another one."""
QUIET_SECONDS = 0.5


class StdinClosed(FanlineError):  # noqa: N818  # reads as what was found
    """The command reads no input any more, or none at the moment; str() says which."""


class CommandProcess:
    """A running command. It leads a session of its own: signals come only from us, and reach all of its children.

    So it has no terminal, unless it has one that is its own, and a program that requires one says so instead of hanging
    in the background.
    """

    def __init__(self, process: trio.Process, terminal: PseudoTerminal | None = None) -> None:
        self._process = process
        self.terminal = terminal
        """Its own, if it has one."""
        self.outputs: dict[StreamName, trio.lowlevel.FdStream]
        self._stdin: trio.abc.SendStream
        if terminal is None:
            assert process.stdin is not None
            # What Trio returns on a system with file descriptors.
            assert isinstance(process.stdout, trio.lowlevel.FdStream)
            assert isinstance(process.stderr, trio.lowlevel.FdStream)
            self._stdin, self.outputs = process.stdin, {"stdout": process.stdout, "stderr": process.stderr}
        else:
            self._stdin, self.outputs = terminal.keys, {"stdout": terminal.screen}
        self._stdin_lock = trio.Lock()
        self._stopping = False
        self.interrupted = False
        """Ctrl-C was the last that was typed on its terminal."""
        self._line_ended = True  # of what was typed on it

    def signal(self, number: int) -> None:
        """Send a signal to the command and all its children."""
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user, as under sudo
            os.killpg(self._process.pid, number)

    async def wait(self) -> int:
        """Wait for its end. Returns its exit code, or -n if signal n killed it."""
        return await self._process.wait()

    def end(self, number: int) -> None:
        """Send a signal that may end it, and continue it if it is stopped, so that it notices."""
        self.signal(number)
        self.signal(signal.SIGCONT)

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL if after `grace` seconds the command, or a child that holds its output, still runs.

        Cancel this when the output has ended: it does not return before the SIGKILL.
        """
        self._stopping = True
        self.end(signal.SIGTERM)
        await trio.sleep(grace)
        self.signal(signal.SIGKILL)
        self._stopping = False

    async def receive(self, stream: trio.lowlevel.FdStream) -> bytes | None:
        """The next output on its stdout or stderr; empty if there is none within half a second; None at the end.

        The end is when every process that holds the stream has closed it. Once the command itself has ended or was
        killed, a child that it left behind is not waited for: then the end is when no output comes.
        """
        with trio.move_on_after(QUIET_SECONDS):
            try:
                return bytes(await stream.receive_some(CHUNK_BYTES)) or None
            except trio.BrokenResourceError:  # how a terminal ends
                return None
        if self._process.poll() is None or self._stopping:
            return b""
        # After a Ctrl-Z or a suspended machine the time is up at once, although there may be output in the pipe.
        with suppress(OSError):
            return os.read(stream.fileno(), CHUNK_BYTES) or None
        return None

    async def type(self, data: bytes, patience: float = math.inf) -> None:
        """Write to its stdin in one piece, waiting at most `patience` seconds for other input. Raises StdinClosed."""
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

    async def feed(self, suspend: Callable[[], Awaitable[None]]) -> None:
        """Pass on our own stdin, up to its end. `suspend`: what Ctrl-Z does if the command has a terminal."""
        with suppress(StdinClosed):
            while data := await _read_stdin():
                await (self.type(data) if self.terminal is None else self._type_keys(self.terminal, data, suspend))
            if self.terminal is not None:  # the first one ends a line that is unfinished, the next one the input
                await self.type(END_OF_INPUT if self._line_ended else 2 * END_OF_INPUT)
                return
        await self._stdin.aclose()

    async def _type_keys(self, terminal: PseudoTerminal, data: bytes, suspend: Callable[[], Awaitable[None]]) -> None:
        # No shell around it would continue it, and so the system does not let a key on its terminal stop it.
        while SUSPEND in data and terminal.makes_signals and terminal.foreground == self._process.pid:
            before, _, data = data.partition(SUSPEND)
            await self.type(before)
            await suspend()
        if data:
            self.interrupted = data.endswith(INTERRUPT) and terminal.makes_signals
            self._line_ended = data.endswith((b"\n", b"\r"))
            await self.type(data)


class PassThrough:
    """Our own stdout or stderr, to which the command's output goes unchanged. If its reader has gone, output is ignored
    and the command continues. `seen` gets it as well.
    """

    def __init__(self, file: TextIO | None, seen: Callable[[bytes], None] = lambda data: None) -> None:
        self._fd = None if file is None else file.fileno()  # None: it was already closed when we started
        self._seen = seen

    async def write(self, data: bytes) -> None:
        """Write in a thread, since an event loop cannot wait for a file or a terminal."""
        self._seen(data)
        if self._fd is None or not data:
            return
        try:
            await trio.to_thread.run_sync(_write_all, self._fd, data, abandon_on_cancel=True)
        except OSError as error:
            self._fd = None
            if error.errno != errno.EPIPE:  # its reader has not gone: it fails, as on a full disk
                note(f"warning: the command's output cannot be passed on any more: {error.strerror}; it goes on")


async def start_command(
    argv: Sequence[str], environ: Mapping[str, str] | None = None, *, tty: bool = False
) -> CommandProcess:
    """Start a command, without a shell; with `tty`, on a terminal of its own. Raises OSError.

    It inherits our environment, with what a producer needs to publish to the same NATS, but not what acts for a viewer;
    `environ` is added to that.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    everything = {**inherited, **(environ or {})}
    if tty:
        return CommandProcess(*await open_pseudo_terminal(argv, everything))
    pipe = subprocess.PIPE
    return CommandProcess(
        await trio.lowlevel.open_process(
            list(argv), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, env=everything
        )
    )


def shell_code(status: int) -> int:
    """The exit code as a shell reports it: 128 + n after signal n."""
    return 128 - status if status < 0 else status


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # another process that shares it has made it non-blocking
            select.select([], [fd], [])


async def _read_stdin() -> bytes:
    """Some bytes of our stdin; empty at its end."""
    if sys.stdin is None:
        return b""
    fd = sys.stdin.fileno()
    while True:
        while _in_background(fd):  # noqa: ASYNC110  # no event tells when a terminal becomes ours
            await trio.sleep(QUIET_SECONDS)
        try:
            return await trio.to_thread.run_sync(os.read, fd, CHUNK_BYTES, abandon_on_cancel=True)
        except OSError:
            if not _in_background(fd):  # otherwise we were moved to the background while reading
                return b""


def _in_background(fd: int) -> bool:
    """Whether this is a terminal that belongs to another job now; with SIGTTIN ignored, reading it is an error."""
    return os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp()
