"""Any object as a text that every receiver accepts. Pure."""

from typing import Any

from fanline.producer.values.interruption import is_interruption
from fanline.protocol.tasks.events import MAX_TEXT

_BYTES = (bytes, bytearray, memoryview)


def text_of(value: object, most: int = MAX_TEXT) -> str:
    """An object's text, cut to `most` characters, with what UTF-8 cannot encode replaced."""
    text = plain_text(value)
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain_text(value: object) -> str:
    """The text of an object: bytes as UTF-8, anything else as `str` has it, or its type if that fails.

    The types are asked, never the object: its `__class__` may raise, or lie.
    """
    if type(value) is str:
        return value
    try:
        if issubclass(type(value), _BYTES):
            return _decoded(value)
        text = value if issubclass(type(value), str) else str(value)
        return "".join((text,))  # type: ignore[arg-type]  # a str, without what its own class adds
    except Exception as error:  # an object whose text cannot be had
        if is_interruption(error):
            raise
        return f"<{type_name(value)}>"


def _decoded(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")


def type_name(value: object) -> str:
    """The name of an object's type."""
    return "".join((type.__dict__["__name__"].__get__(type(value)),))
