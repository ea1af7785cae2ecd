"""Errors that end `fanline serve` with one line on stderr."""

from fanline.protocol.text import harmless


class ServeError(Exception):
    """Something outside the server is in the way. str() is one sentence: what, where, what to do."""

    exit_code = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(harmless(sentence))  # it may quote a key or a value, which may hold anything


class SettingsError(ServeError):
    """A setting is unknown, invalid or missing. str() names the key and its source."""

    exit_code = 2


def first_leaf(error: BaseException) -> BaseException:
    """The error itself, or the first one in nested exception groups: enough for one line on stderr."""
    return first_leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
