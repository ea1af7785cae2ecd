"""Python values as what a message can hold."""

from typing import Any

import msgspec

from fanline.protocol.errors import MessageError
from fanline.protocol.values import check_value


def plain(data: Any) -> Any:
    """`data` as what JSON and CBOR can both hold: dataclasses, dates, sets, tuples and the like are converted.

    Raises TypeError or ValueError for what neither can hold.
    """
    value = _with_lists(msgspec.to_builtins(data, builtin_types=(bytes,), enc_hook=_text))
    try:
        check_value(value)
    except MessageError as error:
        raise ValueError(str(error)) from None
    return value


def _text(value: Any) -> str:
    """A text of a class of its own, as web frameworks have it. Raises TypeError for anything else."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def _with_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return value
