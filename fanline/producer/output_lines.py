"""Output of any kind as lines that every viewer can display. Pure."""

import re

from fanline.protocol.tasks.events import MAX_LINE

_BREAK = re.compile(r"\r\n|\n|\r")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tab, and what UTF-8 cannot encode."""
_REPLACEMENT = "\ufffd"


def lines_of(text: str | bytes) -> list[str]:
    """The lines of a text, without their line ends. A line end at the very end does not begin another line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    elif not isinstance(text, str):
        raise TypeError(f"output must be str or bytes, not {type(text).__name__}")
    if len(text) <= MAX_LINE and text.isprintable():  # the common case
        return [text]
    lines = _BREAK.split(text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [_UNPRINTABLE.sub(_REPLACEMENT, _cut(line)) for line in lines]


def _cut(line: str) -> str:
    """The line, or its beginning and how many characters of it are missing."""
    if len(line) <= MAX_LINE:
        return line
    kept = MAX_LINE - 40  # leaves room for the note
    return f"{line[:kept]} [{len(line) - kept} more characters]"
