"""A terminal of its own for a command, between it and ours: for prompts, colours and programs that fill the screen."""

import os
import pty
import shlex
import shutil
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import trio

INTERRUPT = b"\x03"  # what Ctrl-C sends
END_OF_INPUT = b"\x04"  # Ctrl-D
SUSPEND = b"\x1a"  # Ctrl-Z
_DEFAULT_SIZE = (24, 80)
_DEFAULT_TERM = "xterm-256color"


class PseudoTerminal(NamedTuple):
    """Our end of a command's terminal."""

    screen: trio.lowlevel.FdStream
    """What the command displays."""
    keys: trio.lowlevel.FdStream
    """What is typed."""

    @property
    def makes_signals(self) -> bool:
        """Whether keys such as Ctrl-C are signals, as a program that fills the screen may not have it."""
        with suppress(termios.error):
            return bool(termios.tcgetattr(self.screen.fileno())[3] & termios.ISIG)
        return False

    @property
    def foreground(self) -> int:
        """The process group that gets them; 0 if there is none."""
        with suppress(OSError):
            return os.tcgetpgrp(self.screen.fileno())
        return 0

    def resize(self) -> None:
        """Give it the size of ours; the command is notified."""
        termios.tcsetwinsize(self.screen.fileno(), _our_size())


async def open_pseudo_terminal(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[trio.Process, PseudoTerminal]:
    """Start a command that leads the session of a terminal of its own. Raises OSError if it cannot be started."""
    if shutil.which(argv[0], path=environ.get("PATH")) is None:
        await trio.lowlevel.open_process(list(argv), env=environ)  # raises the error that says why
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(ours, _our_size())
        # A session gets the first terminal that its leader opens. A shell opens it, and becomes the command: it is
        # started without a line of our code between fork and exec, where other threads may hold locks.
        name = shlex.quote(os.ttyname(theirs))
        opens = ["/bin/sh", "-c", f'exec "$@" <>{name} >&0 2>&1', "sh", *argv]
        process = await trio.lowlevel.open_process(
            opens,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={"TERM": _DEFAULT_TERM, **environ},
        )
        terminal = PseudoTerminal(trio.lowlevel.FdStream(ours), trio.lowlevel.FdStream(os.dup(ours)))
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, terminal


def _our_size() -> tuple[int, int]:
    """Lines and columns."""
    for fd in (0, 1, 2):
        with suppress(OSError, termios.error):
            lines, columns = termios.tcgetwinsize(fd)
            if lines and columns:
                return lines, columns
    return _DEFAULT_SIZE
