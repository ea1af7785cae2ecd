"""Any output as lines that every viewer can show. Pure."""

import re

from fanline.protocol.tasks.events import MAX_LINE

_BREAK = re.compile(r"\r\n|\n|\r")
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab, and what UTF-8 cannot hold."""
_INSTEAD = "\ufffd"


def lines_of(text: str | bytes) -> list[str]:
    """The lines of a text without their ends; a line end at its end begins no further one."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    elif not isinstance(text, str):
        raise TypeError(f"output is a str or bytes, not {type(text).__name__}")
    if len(text) <= MAX_LINE and text.isprintable():  # the common case needs no second look
        return [text]
    lines = _BREAK.split(text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [_UNSHOWN.sub(_INSTEAD, _cut(line)) for line in lines]


def _cut(line: str) -> str:
    """The line, or its beginning with a mark that says how much of it is missing."""
    if len(line) <= MAX_LINE:
        return line
    kept = MAX_LINE - 40  # room for the mark
    return f"{line[:kept]} [{len(line) - kept} more characters]"
