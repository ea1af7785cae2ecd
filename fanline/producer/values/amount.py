"""Any object as a number from 0 to a maximum. Pure."""

import math
import numbers
from collections.abc import Callable

from fanline.producer.values.interruption import is_interruption
from fanline.producer.values.text import type_name

Complain = Callable[[str, str], None]
"""Called with what was given wrong (an argument), and with a sentence about what becomes of it."""
_ROUNDING = 1e-6  # how far a sum of percentages may exceed 100


def amount_of(name: str, given: object, most: float, complain: Complain) -> float | None:
    """A finite number from 0 to `most`, whatever library it is from; None if the object says no number."""
    value = _number(given)
    if value is None or math.isnan(value):
        complain(name, f"{name}: {type_name(given) if value is None else 'NaN'} is not a number, so it is left out")
        return None
    if 0 <= value <= most:
        return value
    nearest = min(max(value, 0), most)
    if not math.isclose(value, nearest, rel_tol=_ROUNDING / 100, abs_tol=_ROUNDING):
        complain(name, f"{name}: {value:g} is not in 0-{most:g}, so it counts as {nearest:g}")
    return nearest


def _number(given: object) -> float | None:
    """An int of 64 bits or a float."""
    kind = type(given)
    if kind is float:
        return given  # type: ignore[return-value]  # is one
    try:
        if kind is bool:
            return None
        value = int(given) if issubclass(kind, numbers.Integral) else float(given)  # type: ignore[call-overload,arg-type]  # tried
        return value if -(2**63) <= value < 2**63 or kind is float else float(value)
    except OverflowError:
        return math.inf if _is_positive(given) else -math.inf
    except Exception as error:  # any object
        if is_interruption(error):
            raise
        return None


def _is_positive(given: object) -> bool:
    try:
        return bool(given > 0)  # type: ignore[operator]  # tried
    except Exception as error:  # any object
        if is_interruption(error):
            raise
        return True
