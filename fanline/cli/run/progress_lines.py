"""Progress in the output of a program, such as `42%` or `[3/10]`. Pure; no I/O.

No progress is better than wrong progress: a line counts only if everything in it that looks like progress agrees.

- A percentage is a separate word, from 0 to 100: `42%`, `[ 42.5 %]`, but not `-5%`, `150%` or `%20`.
- A count stands alone in brackets: `[3/10]`, `(3 of 10)`. A bare `3/10` may be a date, and `[10/3]` is not a count.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LONGEST = 1000  # characters; longer lines are data
_PERCENT = re.compile(r"(?<![\w.,%+/-])(\d{1,3}(?:\.\d{1,6})?) ?%(?![\w%])", re.ASCII)
_COUNT = re.compile(r"[\[(] *(\d{1,15}) ?(?:/| of ) ?(\d{1,15}) *[\])]", re.ASCII)


class Progress(NamedTuple):
    """Either a percentage, or how many are done of a total."""

    percent: float | None = None
    done: int | None = None
    total: int | None = None


def progress_in(line: str) -> Progress | None:
    """The progress in one line. A count takes precedence over a percentage, since it is more exact."""
    if len(line) > _LONGEST or not ("%" in line or "[" in line or "(" in line):
        return None
    counts = {(int(done), int(total)) for done, total in _COUNT.findall(line)}
    counts = {(done, total) for done, total in counts if done <= total and total > 0}
    if len(counts) == 1:
        return Progress(None, *counts.pop())
    percents = {float(number) for number in _PERCENT.findall(line)}
    if counts or len(percents) != 1 or (percent := percents.pop()) > 100:
        return None
    return Progress(percent)


def last_progress(lines: Iterable[str]) -> Progress | None:
    """The newest progress in lines that are given oldest first."""
    newest = None
    for line in lines:
        newest = progress_in(line) or newest
    return newest
