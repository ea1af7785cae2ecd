"""Checks of what a job passes in, raising TypeError or ValueError at the call; the result is the data of events."""

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import check_value
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.tasks.events import MAX_FIELDS_BYTES, MAX_OPTIONS, MAX_TEXT, AskKind
from fanline.protocol.text import is_name

MAX_JSON_BYTES = 512 * 1024
"""Limit of a result or an answer: half of the largest message that NATS accepts by default."""
MAX_NAME = 256
"""Characters of a title, a kind, a stage or an option."""
_MAX_ATTEMPT = 1_000_000
_MAX_SECONDS = 31_536_000.0
_MAX_AMOUNT = 1e300
_ROUNDING = 1e-6  # how far a sum of percentages may exceed 100


class TaskSettings(NamedTuple):
    """The arguments of a Task."""

    id: str
    title: str | None
    kind: str | None
    attempt: int | None
    heartbeat: float
    timeout: float | None
    nats: NatsOptions | None
    linger: float
    fields: Mapping[str, Any] | None = None

    @property
    def channel(self) -> str:
        return f"task:{self.id}"


def check_settings(settings: TaskSettings) -> TaskSettings:
    """The settings, with texts made sendable. Raises TypeError or ValueError if no task can have them."""
    _check_id(settings)
    _check_attempt(settings.attempt)
    check_seconds("heartbeat", settings.heartbeat)
    check_seconds("linger", settings.linger, zero=True)
    if settings.timeout is not None:
        check_seconds("timeout", settings.timeout)
    return settings._replace(
        title=_name("title", settings.title), kind=_kind(settings.kind), fields=_fields(settings.fields)
    )


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """A duration of up to a year."""
    seconds = number(name, value, _MAX_SECONDS)
    if seconds == 0 and not zero:
        raise ValueError(f"{name}: must be more than 0 seconds")
    return seconds


def progress_data(
    percent: float | None, message: str | None, stage: str | None, done: float | None, total: float | None
) -> dict[str, Any]:
    """`d` of task_progress; arguments that are None are left out."""
    data: dict[str, Any] = {}
    if percent is not None:
        data["percent"] = min(100, number("percent", percent, 100 + _ROUNDING))
    if done is not None:
        data["done"] = number("done", done, _MAX_AMOUNT)
    if total is not None:
        data["total"] = number("total", total, _MAX_AMOUNT)
    if stage is not None:
        data["stage"] = short("stage", stage, MAX_NAME)
    if message is not None:
        data["message"] = short("message", message)
    return data


def ask_data(ask: str, text: str, kind: str, options: list[str] | None, deadline: float | None) -> dict[str, Any]:
    """`d` of task_confirmation_required."""
    if kind not in tuple(AskKind):
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(AskKind)}")
    data: dict[str, Any] = {"ask": ask, "text": short("text", text), "kind": str(kind)}
    if options is not None:
        if len(options) > MAX_OPTIONS:
            raise ValueError(f"options: {len(options)}, at most {MAX_OPTIONS}")
        data["options"] = [short("options", option, MAX_NAME) for option in options]
    if deadline is not None:
        data["deadline"] = check_seconds("deadline", deadline)
    return data


def number(name: str, value: float, most: float) -> float:
    """A finite number from 0 to `most`, of any numeric library."""
    given: object = value
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise TypeError(f"{name}: expected a number, not {type(given).__name__}")
    try:
        plain = int(given) if isinstance(given, numbers.Integral) and given < 2**63 else float(given)
    except OverflowError:
        plain = math.inf
    if not 0 <= plain <= most or not math.isfinite(plain):
        raise ValueError(f"{name}: {value} is not in 0-{most:g}")
    return plain


def short(name: str, text: str, most: int = MAX_TEXT) -> str:
    """A text that every receiver accepts: cut to `most` characters, with what UTF-8 cannot encode replaced."""
    _check_text(name, text)
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def json_of(value: Any, what: str) -> msgspec.Raw:
    """A value as JSON; NaN and infinities become null. Raises TypeError or ValueError if it cannot be JSON, or if no
    envelope can hold it.
    """
    try:
        plain = json.loads(json.dumps(value), parse_constant=lambda name: None)
        check_value(plain)
        encoded = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    except (MessageError, RecursionError, ValueError) as error:
        raise ValueError(f"{what} must be a JSON value: {error}") from None
    except TypeError as error:
        raise TypeError(f"{what} must be a JSON value: {error}") from None
    if len(encoded) > MAX_JSON_BYTES:
        raise ValueError(f"{what} has {len(encoded)} bytes as JSON, at most {MAX_JSON_BYTES}")
    return msgspec.Raw(encoded)


def _check_id(settings: TaskSettings) -> None:
    try:
        check_channel(settings.channel)
    except MessageError as error:
        raise ValueError(f"not a task id: {settings.id!r} ({error})") from None


def _check_attempt(attempt: object) -> None:
    if attempt is None:
        return
    if isinstance(attempt, bool) or not isinstance(attempt, int):
        raise TypeError(f"attempt: expected an int, not {type(attempt).__name__}")
    if not 1 <= attempt <= _MAX_ATTEMPT:
        raise ValueError(f"attempt: {attempt} is not in 1-{_MAX_ATTEMPT}")


def _name(name: str, text: str | None) -> str | None:
    """A title or kind. Unlike other texts it is refused if it is too long."""
    if text is None:
        return None
    _check_text(name, text)
    if len(text) > MAX_NAME:
        raise ValueError(f"{name}: {len(text)} characters, at most {MAX_NAME}")
    return short(name, text)


def _kind(kind: str | None) -> str | None:
    if kind is not None and isinstance(kind, str) and not is_name(kind):
        raise ValueError(f"kind: {kind!r} has control characters")
    return _name("kind", kind)


def _fields(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The application's own fields, as their JSON has them."""
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise TypeError(f"fields: expected a mapping, not {type(fields).__name__}")
    encoded = json_of(dict(fields), "fields")
    if len(encoded) > MAX_FIELDS_BYTES:
        raise ValueError(f"fields: {len(encoded)} bytes as JSON, at most {MAX_FIELDS_BYTES}")
    known: dict[str, Any] = msgspec.json.decode(encoded)
    return known


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str, not {type(text).__name__}")
