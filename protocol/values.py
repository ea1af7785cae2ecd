"""Plain values from outside: only what both codecs can carry passes, and nothing that is expensive to read."""

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import cbor2

from fanline.protocol.errors import ErrorCode, MessageError

MAX_DEPTH = 64
"""Levels of nesting; deeper input is refused rather than recursed into."""
_LEAVES = (str, float, bytes, bool, type(None))
_LEAF_TYPES = frozenset(_LEAVES)  # one look tells that most items of a list or a map need no check


class _EveryTag(dict[int, Callable[[Any, bool], Any]]):
    """Refuses every tag. cbor2 acts on some by default; with shared references, 185 bytes cost two seconds."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        raise ValueError(f"CBOR tag {tag} is not part of an envelope")


_EVERY_TAG = _EveryTag()


class _FewReads(BytesIO):
    """Refuses to be read from more than `left` times: each value takes one read or two."""

    left = 0

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many values in one message")
        return super().read(size)


def cbor_value(payload: bytes, depth: int = MAX_DEPTH, reads: int | None = None) -> Any:
    """One CBOR data item as a plain value. Raises MessageError(BAD_MESSAGE). `reads`: how often it may be read from,
    which bounds the number of its values; None: as often as it takes.

    Besides malformed input it refuses trailing bytes, repeated keys, indefinite lengths, tags, undefined and other
    simple values, map keys that are not text or integers, and nesting deeper than `depth`.
    """
    stream = BytesIO(payload)
    if reads is not None and len(payload) > reads:  # else it has no more values than that
        stream = _FewReads(payload)
        stream.left = reads
    try:
        value = cbor2.CBORDecoder(
            stream,
            max_depth=depth + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_EVERY_TAG,
            read_size=1,  # so that tell() is the end of the item
        ).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise not_a_message(error) from None
    left_over = len(payload) - stream.tell()
    if left_over:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{left_over} bytes after the end of the CBOR item")
    check_value(value, depth)
    return value


def check_value(value: Any, depth: int = MAX_DEPTH) -> None:
    """Refuse what the other codec could not carry: deep nesting, integers over 64 bits, types that only CBOR has."""
    if isinstance(value, _LEAVES):
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise MessageError(ErrorCode.BAD_MESSAGE, "integer outside 64 bits")
    elif depth == 0:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, list):
        _check_items(value, depth - 1)
    elif isinstance(value, dict):
        for key in value:
            if type(key) is not str and not (type(key) is int and -(2**63) <= key < 2**64):
                _check_number_key(key)
        _check_items(value.values(), depth - 1)
    else:
        raise MessageError(ErrorCode.BAD_MESSAGE, "CBOR simple values are not part of an envelope")


def _check_items(items: Iterable[Any], depth: int) -> None:
    for item in items:  # without a call for each: a client may send very many tiny ones
        kind = type(item)
        if kind in _LEAF_TYPES or (kind is int and -(2**63) <= item < 2**64) or (not item and kind is list and depth):
            continue
        check_value(item, depth)


def _check_number_key(key: Any) -> None:
    if type(key) is not int:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"map key of type {type(key).__name__} (text or integer only)")
    check_value(key)


def not_a_message(error: Exception) -> MessageError:
    """The error that a codec's error becomes."""
    return MessageError(ErrorCode.BAD_MESSAGE, f"not a message: {str(error)[:200] or type(error).__name__}")
