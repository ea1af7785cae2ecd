"""Text from outside: what of it a terminal would obey, and the names that may hold none of that.

Control characters are C0, DEL and C1 (ECMA-48), the two separators that end a line, and the characters that reorder
the text around them (UAX #9: embeddings, overrides, isolates). Lone surrogates cannot be written at all.
"""

import logging
import re
from types import TracebackType
from urllib.parse import urlsplit

_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
NAME_PATTERN = rf"^[^{_CONTROLS}]*\Z"
"""What a name may be, for the types of messages: names are shown to people, logged, and compared by eye."""

_CONTROL = re.compile(f"[{_CONTROLS}\ud800-\udfff]")
_CONTROL_IN_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NOT_IN_NAMES = re.compile(f"[{_CONTROLS}]")
_COMMANDS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_]|[ -/]+[0-~])")
"""Commands of terminals: CSI and OSC sequences, and the short ones."""

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def harmless(text: str) -> str:
    """A line that a terminal only displays: colours and other commands are removed, control characters made visible.

    Cleaning twice is the same as cleaning once.
    """
    if text.isprintable():
        return text
    return _CONTROL.sub(_escaped, _COMMANDS.sub("", text.expandtabs()))


def harmless_json(text: str) -> str:
    """The same for a JSON text, which keeps its value: its strings hold the characters as escapes."""
    return text if text.isprintable() else _CONTROL_IN_JSON.sub(_json_escaped, text)


class HarmlessFormatter(logging.Formatter):
    """Log records for a terminal. A record may quote text from outside and is still one line; only a
    traceback has several.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # overrides
        return harmless(super().formatMessage(record))

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802  # overrides
        return "\n".join(map(harmless, super().formatException(ei).split("\n")))


def without_secrets(url: str) -> str:
    """A URL for logs: without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def is_name(text: str) -> bool:
    """Whether a text has no control characters."""
    return text.isprintable() or _NOT_IN_NAMES.search(text) is None


def explain(error: Exception) -> str:
    """What msgspec says of a value, in words for NAME_PATTERN, as one line: it quotes the names of unknown fields."""
    return harmless(str(error).replace(f"matching regex {NAME_PATTERN!r}", "without control characters"))


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _json_escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
