"""The only way to a person's terminal, for all commands but `fanline run`, which passes its command's own output on.

Whatever is printed may have come from outside: from viewers, producers, servers, files. A terminal obeys some of the
characters in it (OSC 52 writes the clipboard, C1 and C0 hide and forge lines, bidirectional overrides reorder them), so
everything is cleaned here, whatever it is. No other module of the command line prints; a test holds that.
"""

import sys

from rich.text import Text

from fanline.protocol.text import harmless, harmless_json


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
    print(f"fanline: {harmless(message)}", file=sys.stderr, flush=True)  # noqa: T201  # a command's output


def complain(message: str) -> None:
    """Print an error as one line on stderr."""
    note(f"error: {' '.join(message.split())}")


def styled(text: str, style: str = "", *, one_line: bool = False) -> Text:
    """A text for a display. `one_line`: cut at the edge of the terminal."""
    if one_line:
        return Text(harmless(text), style=style, no_wrap=True, overflow="ellipsis")
    return Text(harmless(text), style=style)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
