"""Bytes of a program's output, in whatever chunks they come, as lines of text. Pure; no I/O."""

import codecs
import re

from fanline.protocol.tasks.events import MAX_LINE

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~])")
"""Colours, movements of the cursor, window titles: ECMA-48's CSI and OSC sequences."""


class LineSplitter:
    r"""Feed it chunks; the lines that come out are the same, however the bytes were cut.

    - UTF-8 that is none becomes U+FFFD, and a character cut in two by a chunk's end is whole again.
    - "\r" goes back to the line's begin, as progress bars do: what comes after it replaces the line, so that a line is
      what a terminal would show of it in the end. "\r\n" is "\n".
    - A line of more than `bound` characters is cut into lines of so many.
    - Colours and other escape sequences of terminals are left out.
    """

    def __init__(self, bound: int = MAX_LINE) -> None:
        self._bound = bound
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""  # what the line shows so far, and a "\r" if that is about to be replaced
        self._redrawn = False

    @property
    def shown(self) -> str:
        """What the unfinished line shows now; a bar that is being drawn is here."""
        return _plain(self._unfinished.removesuffix("\r"))

    def feed(self, data: bytes) -> list[str]:
        """The lines that this chunk completes."""
        return self._split(self._decoder.decode(data))

    def prompt(self) -> list[str]:
        """Give out the unfinished line as one: nothing more comes, it may be a question. Not a bar that is redrawn."""
        return [] if self._redrawn else self._take()

    def end(self) -> list[str]:
        """The last line, if no newline ended it."""
        return self._split(self._decoder.decode(b"", final=True)) + self._take()

    def _split(self, text: str) -> list[str]:
        *complete, rest = (self._unfinished + text).split("\n")
        lines = [piece for line in complete for piece in self._pieces(line)]
        self._redrawn = "\r" in rest or (self._redrawn and not complete)
        *cut, shown = self._pieces(rest)
        self._unfinished = shown + ("\r" if rest.endswith("\r") else "")
        return [_plain(line) for line in lines + cut]

    def _pieces(self, line: str) -> list[str]:
        """What was cut off because it was too long, and what the line shows."""
        if len(line) <= self._bound and "\r" not in line:
            return [line]
        cut: list[str] = []
        shown = ""
        for drawn in line.rstrip("\r").split("\r"):
            *full, shown = [drawn[at : at + self._bound] for at in range(0, len(drawn), self._bound)] or [""]
            cut += full
        return [*cut, shown]

    def _take(self) -> list[str]:
        line, self._unfinished, self._redrawn = self.shown, "", False
        return [line] if line else []


def _plain(line: str) -> str:
    return _ESCAPES.sub("", line) if "\x1b" in line else line
