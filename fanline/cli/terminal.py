"""The only way to a person's terminal, for all commands but `fanline run`, which passes its command's own output on.

Whatever is printed may have come from outside: from viewers, producers, servers, files. A terminal obeys some of the
characters in it (OSC 52 writes the clipboard, C1 and C0 hide and forge lines, bidirectional overrides reorder them), so
everything is cleaned here, whatever it is. No other module of the command line prints; a test holds that.
"""

import os
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from fanline.protocol.text import harmless, harmless_json

if TYPE_CHECKING:
    from rich.text import Text


def put(line: str) -> None:
    """Print a line of data on stdout, at once."""
    _write(harmless(line))


def put_lines(lines: list[str]) -> None:
    """The same for several lines, in one piece."""
    _write("\n".join(map(harmless, lines)))


def put_json(text: str) -> None:
    """Print a JSON text on stdout, in which control characters become escapes: the value stays the same."""
    _write(harmless_json(text))


def note(message: str) -> None:
    """Print a line for the person at the terminal, on stderr: stdout is for data."""
    if sys.stderr is None:  # it was closed when we started; `print` would take stdout
        return
    print(f"fanline: {harmless(message)}", end=line_end(), file=sys.stderr, flush=True)  # noqa: T201  # a command's output


def line_end() -> str:
    """What ends a line on stderr: if it is a terminal that shows everything as it is, the return has to be said."""
    if sys.stderr is None:
        return "\n"
    with suppress(OSError, ValueError, termios.error):
        if not termios.tcgetattr(sys.stderr.fileno())[1] & termios.OPOST:
            return "\r\n"
    return "\n"


def complain(message: str) -> None:
    """Print an error as one line on stderr."""
    note(f"error: {' '.join(message.split())}")


def give_up_stdout() -> None:
    """Nobody takes what is printed: let it go nowhere, since the interpreter flushes again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def styled(text: str, style: str = "", *, one_line: bool = False) -> "Text":
    """A text for a display. `one_line`: cut at the edge of the terminal."""
    from rich.text import Text  # errors need no display

    if one_line:
        return Text(harmless(text), style=style, no_wrap=True, overflow="ellipsis")
    return Text(harmless(text), style=style)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
