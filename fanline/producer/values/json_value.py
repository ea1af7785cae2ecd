"""Any object as JSON of a limited size. Pure.

What JSON has no form for gets the nearest one: a date is its ISO text, a set or an array a list, an object its `str`.
What refers back to itself, is nested too deeply or does not fit is cut, and that is reported.
"""

import datetime
import enum
import json
import math
import numbers
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from fanline.producer.values.interruption import is_interruption
from fanline.producer.values.text import plain_text, text_of, type_name
from fanline.protocol.values import MAX_DEPTH, check_value

_LEVELS = MAX_DEPTH - 4  # of nesting: an event, and a snapshot, hold the value some levels deep
_LEAST = 64  # bytes; nothing is begun that has less room
_MAX_KEY = 256
_LISTS: tuple[type, ...] = (list, tuple, set, frozenset, deque, type({}.keys()), type({}.values()))
_TIMES = (datetime.date, datetime.time)
_BYTES = (bytes, bytearray, memoryview)
_CYCLE = "<refers back to itself>"


class JsonValue(NamedTuple):
    """A value as JSON, and what is missing of it."""

    raw: msgspec.Raw
    loss: str | None


def json_value(value: object, most: int) -> JsonValue:
    """The JSON of any object, in at most `most` bytes. NaN and infinities become null."""
    try:
        plain = json.loads(json.dumps(value), parse_constant=lambda name: None)
        check_value(plain, _LEVELS)
        encoded = _encoded(plain)
        if len(encoded) <= most:
            return JsonValue(msgspec.Raw(encoded), None)
    except Exception as error:  # what JSON does not take as it is; the next lines do
        if is_interruption(error):
            raise
    walk = _Walk(most)
    return JsonValue(msgspec.Raw(_encoded(walk.plain(value, _LEVELS))), walk.loss)


def _encoded(plain: Any) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


class _Walk:
    """One object on its way to a plain value. `room`: bytes that are left for it as JSON."""

    def __init__(self, room: int) -> None:
        self.loss: str | None = None
        self._most = room
        self._room = room
        self._path: set[int] = set()  # the containers around the current value

    def plain(self, value: object, depth: int) -> Any:
        """The value of None, booleans, numbers, texts, lists and maps alone. Takes its room."""
        if id(value) in self._path:
            self.loss = self.loss or "it refers back to itself"
            return self._text(_CYCLE)
        self._path.add(id(value))
        try:
            for kinds, form in _FORMS:
                if issubclass(type(value), kinds):
                    return form(self, value, depth)
            return self._of_other(value, depth)
        except Exception as error:  # any object: what it is made of raises
            if is_interruption(error):
                raise
            return self._text(plain_text(value))
        finally:
            self._path.discard(id(value))

    # --- forms: (value, levels that may be below it) -------------------------------------------------------------

    def none(self, value: Any, depth: int) -> Any:
        self._room -= 6
        return value

    def integer(self, value: Any, depth: int) -> Any:
        plain = int(value)
        return self._number(plain if -(2**63) <= plain < 2**64 else float(plain))

    def real(self, value: Any, depth: int) -> Any:
        return self._number(float(value))

    def _number(self, plain: float) -> float | None:
        self._room -= len(repr(plain)) + 1
        return plain if math.isfinite(plain) else None

    def text(self, value: Any, depth: int) -> Any:
        return self._text(plain_text(value))

    def time(self, value: Any, depth: int) -> Any:
        return self._text(value.isoformat())

    def span(self, value: Any, depth: int) -> Any:
        return self.real(value.total_seconds(), depth)

    def enum(self, value: Any, depth: int) -> Any:
        return self._inner(value.value, depth)

    def error(self, value: Any, depth: int) -> Any:
        return self._text(f"{type_name(value)}: {plain_text(value)}")

    def struct(self, value: Any, depth: int) -> Any:
        return self.mapping(msgspec.structs.asdict(value), depth)

    def mapping(self, value: Any, depth: int) -> Any:
        found: dict[str, Any] = {}
        if not self._may_begin(depth):
            return found
        for key in value:
            if self._is_full():
                break
            name = text_of(key.value if issubclass(type(key), enum.Enum) else key, _MAX_KEY)
            self._room -= len(_encoded(name)) + 2
            if self._is_full():
                break
            found[name] = self.plain(value[key], depth - 1)
        return found

    def items(self, value: Iterable[Any], depth: int) -> Any:
        found: list[Any] = []
        if not self._may_begin(depth):
            return found
        for item in value:
            if self._is_full():
                break
            self._room -= 1
            found.append(self.plain(item, depth - 1))
        return found

    def _of_other(self, value: Any, depth: int) -> Any:
        """A dataclass, a model of Pydantic, an array or a scalar of numpy, a decimal; or else the text of an object."""
        kind = type(value)
        if fields := getattr(kind, "__dataclass_fields__", None):
            return self.mapping({name: getattr(value, name) for name in fields}, depth)
        for method in ("model_dump", "tolist"):
            if callable(getattr(kind, method, None)):
                return self._inner(getattr(value, method)(), depth)
        if hasattr(kind, "__float__"):
            return self.real(value, depth)
        return self._text(plain_text(value))

    def _inner(self, value: object, depth: int) -> Any:
        """What stands for another value."""
        return self.plain(value, depth - 1) if depth > 0 else self._text(plain_text(value))

    # --- room ----------------------------------------------------------------------------------------------------

    def _may_begin(self, depth: int) -> bool:
        self._room -= 2
        if depth <= 0:
            self.loss = self.loss or f"it is nested deeper than {_LEVELS} levels"
        return depth > 0

    def _is_full(self) -> bool:
        """Whether nothing more fits."""
        if self._room >= _LEAST:
            return False
        self.loss = self.loss or f"as JSON it is larger than {self._most:,} bytes"
        return True

    def _text(self, text: str) -> str:
        """The text, or as much of it as fits."""
        kept = text_of(text, max(_LEAST, self._room))
        if len(_encoded(kept)) > self._room:
            kept = _beginning(kept, self._room - _LEAST // 2)
        if len(kept) < len(text):
            self.loss = self.loss or f"as JSON it is larger than {self._most:,} bytes"
        self._room -= len(_encoded(kept))
        return kept


def _beginning(text: str, most: int) -> str:
    """What of a text fits into `most` bytes of JSON, about."""
    kept = text.encode()[: max(0, most - 2)].decode("utf-8", "ignore")
    if len(_encoded(kept)) > most:
        kept = kept[: max(0, most) // 6]  # no character takes more bytes
    return f"{kept}..."


_FORMS: tuple[tuple[Any, Callable[[_Walk, Any, int], Any]], ...] = (
    ((type(None), bool), _Walk.none),
    (enum.Enum, _Walk.enum),
    ((str, *_BYTES), _Walk.text),
    (numbers.Integral, _Walk.integer),
    (numbers.Real, _Walk.real),
    (_TIMES, _Walk.time),
    (datetime.timedelta, _Walk.span),
    (BaseException, _Walk.error),
    (msgspec.Struct, _Walk.struct),
    (Mapping, _Walk.mapping),
    (_LISTS, _Walk.items),
)
