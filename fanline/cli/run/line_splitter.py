"""The output of a program, bytes in chunks of any size, as lines of text. Pure; no I/O."""

import codecs
import re

from fanline.protocol.tasks.events import MAX_LINE

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~])")
"""Colours, cursor movements, window titles: the CSI and OSC sequences of ECMA-48."""
_STATUS_LINE = re.compile("\x1b[78]")
"""Around what is drawn elsewhere, as the bar of apt at the bottom: the cursor is kept, and put back."""


class LineSplitter:
    r"""Feed it chunks; the lines that it returns do not depend on how the bytes were divided.

    - Invalid UTF-8 becomes U+FFFD, and a character that is divided between two chunks is put together.
    - "\r" returns to the beginning of the line, as progress bars do: what follows replaces the line, so that a line is
      what a terminal would show of it in the end. "\r\n" is "\n".
    - What is drawn elsewhere between two lines, on a status line, is replaced by what follows, too.
    - A line longer than `bound` characters is divided into lines of that length.
    - Colours and other escape sequences of terminals are removed.
    """

    def __init__(self, bound: int = MAX_LINE) -> None:
        self._bound = bound
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""  # what the line shows so far, and a "\r" if that will be replaced
        self._redrawn = False
        self.redrawn = False
        """Whether the unfinished line has been drawn over already, as a bar is."""
        self.were_redrawn: list[bool] = []
        """The same of each line that was returned last."""

    @property
    def shown(self) -> str:
        """What the unfinished line shows now, such as a progress bar that is being drawn."""
        return _plain(self._unfinished.removesuffix("\r"))

    def feed(self, data: bytes) -> list[str]:
        """The lines that this chunk completes."""
        return self._split(self._decoder.decode(data))

    def prompt(self) -> list[str]:
        """The unfinished line, as a line of its own: the program is silent, so it may be a question. Not a bar that is
        being redrawn.
        """
        self.were_redrawn = []
        return [] if self._redrawn else self._take()

    def end(self) -> list[str]:
        """The last line, if no newline ends it."""
        return self._split(self._decoder.decode(b"", final=True)) + self._take()

    def _split(self, text: str) -> list[str]:
        *complete, rest = _STATUS_LINE.sub("\r", self._unfinished + text).split("\n")
        pieces = [(piece, "\r" in line.rstrip("\r")) for line in complete for piece in self._pieces(line)]
        if pieces and self.redrawn:
            pieces[0] = pieces[0][0], True
        self._redrawn = "\r" in rest or (self._redrawn and not complete)
        self.redrawn = "\r" in rest.rstrip("\r") or (self.redrawn and not complete)
        *cut, shown = self._pieces(rest)
        self._unfinished = shown + ("\r" if rest.endswith("\r") else "")
        pieces += [(piece, self.redrawn) for piece in cut]
        self.were_redrawn = [redrawn for _, redrawn in pieces]
        return [_plain(piece) for piece, _ in pieces]

    def _pieces(self, line: str) -> list[str]:
        """The parts that were cut off because the line is too long, and what the line shows."""
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
        if line:
            self.were_redrawn.append(self.redrawn)
        return [line] if line else []


def _plain(line: str) -> str:
    return _ESCAPES.sub("", line) if "\x1b" in line else line
