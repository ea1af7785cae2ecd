"""Progress in the output of a program, such as `42%` or `[3/10]`. Pure; no I/O.

No progress is better than wrong progress: a line counts only if it has the form of progress, and everything in it that
looks like progress agrees.

- A percentage is a separate word, from 0 to 100: `42%`, `[ 42.5 %]`, but not `-5%`, `150%` or `%20`. It stands alone,
  in square brackets, next to a bar, in columns of figures, or at the end of what is being done: `Downloading... 42%`.
  Elsewhere it is a word of a sentence: `coverage dropped by 3%`, `smaller by half (50%)`. In a line that is redrawn, as
  bars are, every percentage counts.
- A count stands alone in brackets, `[3/10]`, `(3 of 10)`, or behind a bar: `[====>   ] 3/10`, `━━━━╸━━━ 1.2/3.4 MB`. A
  bare `3/10` may be a date, and `[10/3]` is not a count.
- Of several bars that are redrawn by turns, the first one counts until it is full: the others are parts of it.

The person who starts the command may know better, and give a pattern, or say that there is no progress to find.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

_LONGEST = 1000  # characters; longer lines are data
_PERCENT = re.compile(r"(?<![\w.,%+/-])(\d{1,3}(?:\.\d{1,6})?) ?%(?![\w%])", re.ASCII)
_COUNT = re.compile(r"[\[(] *(\d{1,15}) ?(?:/| of ) ?(\d{1,15}) *[\])]", re.ASCII)
_AMOUNT = r"(\d{1,15}(?:\.\d{1,6})?)"
_BAR_COUNT = re.compile(
    rf"(?:\[(?:[=#>][=#>. -]{{3,}}|\ {{4,}})\]|[\u2500-\u25ff]{{3,}}) *{_AMOUNT}/{_AMOUNT}(?![\w/.]| ?%)", re.ASCII
)
_BAR = r"[|#=>\u2500-\u25ff\])}]"
"""What ends a bar, or begins one."""
_BEFORE = re.compile(
    rf"""(?: ^ | \[ | ^\W*\( | {_BAR}                # alone, in brackets, after a bar
      | \b(?:progress | (?!warning)\w+ing)\b [^\w%]* # what is being done
      | ^\W*(?!warning)\w+ing\b.*: | \.\.\. | …
      | ^[\d\s.,:]+                                 # columns of figures
    ) \s* $""",
    re.VERBOSE | re.IGNORECASE,
)
_AFTER = re.compile(
    r"""^ \s* (?: [.]*$ | [\])]                     # the end, closing brackets
      | [|\[#=>\u2500-\u25ff]                       # a bar
      | (?:complete|completed|done|finished)\b
      | [\d(]                                       # columns of figures
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_DRAWN = re.compile(r"[\u2500-\u25ff]{3}")
_NO_LETTERS = re.compile(r"[\W\d_]+")
_MAX_BARS = 16
_BEGINS_BAR = re.compile(r" ?(?:\||\[[#=>. -]{2}|[#=\u2500-\u25ff]{2})")


class Progress(NamedTuple):
    """Either a percentage, or how many are done of a total."""

    percent: float | None = None
    done: float | None = None
    total: float | None = None

    @property
    def is_full(self) -> bool:
        return self.percent == 100 or (self.done is not None and self.done == self.total)


Reader = Callable[[str, bool], Progress | None]
"""Finds the progress in a line, given whether the line is being redrawn."""


def progress_in(line: str, redrawn: bool = False) -> Progress | None:
    """The progress in one line. A count takes precedence over a percentage, since it is more exact."""
    if len(line) > _LONGEST:
        return None
    if "%" not in line and (bar := _BAR_COUNT.search(line)) is not None:
        return _checked(Progress(None, float(bar[1]), float(bar[2])))
    if not ("%" in line or "[" in line or "(" in line):
        return None
    counts = {(int(done), int(total)) for done, total in _COUNT.findall(line)}
    counts = {(done, total) for done, total in counts if done <= total and total > 0}
    if len(counts) == 1:
        return Progress(None, *counts.pop())
    found = list(_PERCENT.finditer(line))
    percents = {float(each[1]) for each in found}
    if counts or len(percents) != 1 or (percent := percents.pop()) > 100:
        return None
    return Progress(percent) if redrawn or any(_has_form(line, each) for each in found) else None


class MainBar:
    """A reader that tells bars that are redrawn by turns from each other, by the words before their figures."""

    def __init__(self) -> None:
        self._unfinished: dict[str, bool] = {}
        """Whether another bar was drawn since."""
        self._main: str | None = None

    def __call__(self, line: str, redrawn: bool) -> Progress | None:
        progress = progress_in(line, redrawn)
        if progress is None or not (redrawn or _DRAWN.search(line)):
            return progress
        return progress if self._is_main(_label(line), progress) else None

    def _is_main(self, bar: str, progress: Progress) -> bool:
        """Whether it counts: a bar that comes back before it is full has been drawn around the others."""
        if self._main is None and self._unfinished.get(bar):
            self._main = bar
        if self._main not in (None, bar):
            return False
        for other in self._unfinished:
            self._unfinished[other] = True
        self._unfinished[bar] = False
        if progress.is_full:
            del self._unfinished[bar]
            self._main = None
        while len(self._unfinished) > _MAX_BARS:
            del self._unfinished[next(iter(self._unfinished))]
        return True


def _label(line: str) -> str:
    """Of a bar: the words before its figures. Numbers in them may count, too."""
    return _NO_LETTERS.sub("", re.split(r"\d+(?:\.\d+)? ?%|\d+ ?/|\d+ of \d", line, maxsplit=1)[0])


def no_progress(line: str, redrawn: bool) -> None:
    """Of a command whose output is not to be read."""


def pattern_reader(pattern: str) -> Reader:
    """A reader for a pattern with one group, the percentage; with two, how many are done of how many; or with groups
    named `percent`, or `done` and `total`. Raises ValueError, which says what is wrong.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    names = set(compiled.groupindex) or {1: {"percent"}, 2: {"done", "total"}}.get(compiled.groups, set())
    if names not in ({"percent"}, {"done", "total"}):
        raise ValueError("it needs one group, the percentage, or two: how many are done, and of how many")
    groups = compiled.groupindex or ({"percent": 1} if compiled.groups == 1 else {"done": 1, "total": 2})

    def read(line: str, redrawn: bool) -> Progress | None:
        found = compiled.search(line[:_LONGEST])
        with suppress(TypeError, ValueError):  # a group that did not take part, or is not a number
            if found is not None:
                return _checked(Progress(**{name: float(found[group]) for name, group in groups.items()}))
        return None

    return read


def last_progress(lines: Iterable[tuple[str, bool]], read: Reader) -> Progress | None:
    """The newest progress in lines, given oldest first, each with whether it has been redrawn."""
    newest = None
    for line, redrawn in lines:
        newest = read(line, redrawn) or newest
    return newest


def _has_form(line: str, percent: re.Match[str]) -> bool:
    before, after = line[: percent.start()], line[percent.end() :]
    return bool(_BEGINS_BAR.match(after) or (_BEFORE.search(before) and _AFTER.search(after)))


def _checked(progress: Progress) -> Progress | None:
    """None if the numbers are impossible."""
    percent, done, total = progress
    if percent is not None:
        return progress if 0 <= percent <= 100 else None
    return progress if done is not None and total and 0 <= done <= total < 1e300 else None
