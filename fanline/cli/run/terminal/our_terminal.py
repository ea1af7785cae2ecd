"""Our own terminal, while a command has one of its own behind it.

The keys go to the command's terminal unchanged: that is the one which turns Ctrl-C into a signal, echoes, and edits
lines. What it displays comes out of that one as it is to be displayed, so ours adds nothing to it.
"""

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Self, TextIO

from fanline.cli.run.terminal.screen_modes import ScreenModes

_INPUT, _OUTPUT, _LOCAL = 0, 1, 3  # in what tcgetattr returns
_TRANSLATING = termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON
_EDITING = termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG


class OurTerminal:
    """`with` it, keys are passed on as they are typed, if our stdin is a terminal, and what is displayed is passed on
    as it is, if our stdout is one. Afterwards both are as before, whatever the command has left switched on.
    """

    def __init__(self) -> None:
        self.modes = ScreenModes()
        """Feed it what is displayed."""
        self._changed = ExitStack()

    def __enter__(self) -> Self:
        self._change()
        return self

    def __exit__(self, *error: object) -> None:
        self._changed.close()

    def suspend(self) -> None:
        """Stop this process, and all of its job, as Ctrl-Z does; returns when it is continued."""
        self._changed.close()
        os.killpg(0, signal.SIGTSTP)
        self._change()
        _display(self.modes.on)

    def _change(self) -> None:
        # Undone from the last to the first: what is displayed last is still displayed as it is.
        if _is_ours(sys.stdin):
            self._changed.enter_context(_without(sys.stdin, {_INPUT: _TRANSLATING, _LOCAL: _EDITING}))
        if _is_ours(sys.stdout):
            self._changed.enter_context(_without(sys.stdout, {_OUTPUT: termios.OPOST}))
            self._changed.callback(lambda: _display(self.modes.off))


def _is_ours(file: TextIO | None) -> bool:
    """Whether it is a terminal in whose foreground we are: in the background, changing it would stop us."""
    if file is None:
        return False
    with suppress(OSError, ValueError):
        return os.isatty(file.fileno()) and os.tcgetpgrp(file.fileno()) == os.getpgrp()
    return False


@contextmanager
def _without(file: TextIO, flags: dict[int, int]) -> Iterator[None]:
    """A terminal with these flags cleared, by their index in its attributes."""
    before, changed = termios.tcgetattr(file.fileno()), termios.tcgetattr(file.fileno())
    for index, cleared in flags.items():
        changed[index] &= ~cleared
    termios.tcsetattr(file.fileno(), termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(file.fileno(), termios.TCSADRAIN, before)


def _display(data: bytes) -> None:
    with suppress(OSError):
        os.write(sys.stdout.fileno(), data)
