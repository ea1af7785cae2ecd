"""Output of any kind as lines that every viewer can display. Pure."""

import re

from fanline.producer.values.amount import Complain
from fanline.producer.values.text import plain_text, text_of
from fanline.protocol.tasks.events import MAX_LINE, Stream

_BREAK = re.compile(r"\r\n|\n|\r")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tab, and what UTF-8 cannot encode."""
_STREAMS = {str(stream): stream for stream in Stream}
_REPLACEMENT = "\ufffd"


def lines_of(output: object) -> list[str]:
    """The lines of a text, or of the text of any object, without their line ends. A line end at the very end does not
    begin another line.
    """
    text = plain_text(output)
    if len(text) <= MAX_LINE and text.isprintable():  # the common case
        return [text]
    lines = _BREAK.split(text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [_UNPRINTABLE.sub(_REPLACEMENT, _cut(line)) for line in lines]


def stream_of(name: object, complain: Complain) -> Stream:
    """The stream of that name, stdout by default."""
    stream = _STREAMS.get(text_of(name))
    if stream is None:
        complain("stream", f"stream: not one of {', '.join(Stream)}, so it counts as {Stream.STDOUT}")
    return stream or Stream.STDOUT


def _cut(line: str) -> str:
    """The line, or its beginning and how many characters of it are missing."""
    if len(line) <= MAX_LINE:
        return line
    kept = MAX_LINE - 40  # leaves room for the note
    return f"{line[:kept]} [{len(line) - kept} more characters]"
