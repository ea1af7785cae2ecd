"""Objects that a job may report by mistake, or that somebody has made to break whoever looks at them."""

import datetime
import enum
import itertools
import math
import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import MagicMock

from fanline.producer.task import Task


def _fail(*_: object) -> NoReturn:
    raise RuntimeError("not this one")


class Mute:
    """Nothing can be had of it."""

    __str__ = __repr__ = __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__ = __bytes__ = _fail
    __eq__ = __hash__ = __lt__ = __gt__ = __format__ = _fail
    tolist = model_dump = isoformat = _fail

    @property  # type: ignore[misc]  # the point
    def __class__(self) -> Any:
        _fail()


class Liar:
    """Says that it is a text."""

    @property  # type: ignore[misc]  # the point
    def __class__(self) -> Any:
        return str

    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Loud(str):
    """A text whose every method is another's."""

    __slots__ = ()
    __len__ = __getitem__ = __str__ = __iter__ = encode = isascii = isprintable = split = __format__ = _fail  # type: ignore[assignment]


class Number(int):
    __int__ = __float__ = __lt__ = __gt__ = __le__ = __ge__ = __repr__ = _fail


class Rows(Mapping[str, Any]):
    """Has more keys than there are."""

    def __getitem__(self, key: str) -> Any:
        return {"rows": self}

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        return -1


class Onion:
    """Each layer has another one in it."""

    def tolist(self) -> "Onion":
        return Onion()


class Scalar:
    """As numpy's, which are no numbers of Python."""

    def __float__(self) -> float:
        return 2.5

    def tolist(self) -> float:
        return 2.5


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        _fail()


class Odd(metaclass=Meta):
    __str__ = _fail


class Kind(enum.Enum):
    ODD = object()


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"list": []}
    value["list"].append(value)
    return value


MAKERS: dict[str, Callable[[], Any]] = {
    "mute": Mute,
    "liar": Liar,
    "loud": lambda: Loud("loud"),
    "number": lambda: Number(7),
    "rows": Rows,
    "onion": Onion,
    "scalar": Scalar,
    "odd type": Odd,
    "enum": lambda: Kind.ODD,
    "mock": MagicMock,
    "deep": lambda: _deep(50),
    "too deep": lambda: _deep(20_000),
    "cycle": _cycle,
    "huge text": lambda: "x" * 1_000_000,
    "huge bytes": lambda: b"\xff" * 1_000_000,
    "huge list": lambda: [0.25] * 150_000,
    "huge map": lambda: {str(number): "\x01" * 90 for number in range(9000)},
    "surrogate": lambda: "\ud800\x00\u2028",
    "generator": lambda: (number for number in range(3)),
    "endless": itertools.count,
    "NaN": lambda: Decimal("NaN"),
    "infinity": lambda: math.inf,
    "large decimal": lambda: Decimal("1e999"),
    "fraction": lambda: Fraction(1, 3),
    "large number": lambda: 10**5000,
    "low number": lambda: -(10**400),
    "complex": lambda: 1j,
    "type": lambda: Task,
    "time": lambda: datetime.datetime.now(datetime.UTC),
    "span": lambda: datetime.timedelta.max,
    "path": lambda: Path("/x"),
    "set": lambda: {1, "a", None},
    "odd keys": lambda: {(1, 2): 3, None: 4, 1.5: 5, Loud("k"): 6},
    "deque": lambda: deque([1]),
    "range": lambda: range(10**9),
    "error": lambda: ValueError(Mute()),
    "memory": lambda: memoryview(b"x"),
    "queue": queue.Queue,
    "ellipsis": lambda: ...,
}
