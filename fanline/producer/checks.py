"""The arguments of a Task, which raise TypeError or ValueError if they are wrong, and the data of events.

What is wrong before any work has begun is a mistake in the program, so it raises at once. What a running job reports
never raises (values/): it is made to fit, and `complain` is called if something of it is lost.
"""

import logging
import math
import numbers
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from fanline.producer.values.amount import Complain, amount_of
from fanline.producer.values.interruption import is_interruption
from fanline.producer.values.json_value import json_value
from fanline.producer.values.text import text_of
from fanline.protocol.channels import check_channel
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.tasks.events import MAX_FIELDS_BYTES, MAX_OPTIONS, MAX_TEXT, AskKind
from fanline.protocol.text import is_name

MAX_JSON_BYTES = 512 * 1024
"""Limit of a result or an answer: half of the largest message that NATS accepts by default."""
MAX_NAME = 256
"""Characters of a title, a kind, a stage or an option."""
_MAX_ATTEMPT = 1_000_000
MAX_SECONDS = 31_536_000.0
_MAX_AMOUNT = 1e300
_log = logging.getLogger("fanline")


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
    takes_calls: bool = False

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
        title=None if settings.title is None else short("title", settings.title, MAX_NAME),
        kind=_kind(settings.kind),
        fields=_fields(settings.fields),
    )


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """A duration of up to a year."""
    seconds = number(name, value, MAX_SECONDS)
    if seconds == 0 and not zero:
        raise ValueError(f"{name}: must be more than 0 seconds")
    return seconds


def progress_data(
    percent: object, message: object, stage: object, done: object, total: object, complain: Complain
) -> dict[str, Any]:
    """`d` of task_progress; arguments that are None are left out, and so is what is no number."""
    amounts = (("percent", percent, 100.0), ("done", done, _MAX_AMOUNT), ("total", total, _MAX_AMOUNT))
    data: dict[str, Any] = {
        name: amount
        for name, given, most in amounts
        if given is not None and (amount := amount_of(name, given, most, complain)) is not None
    }
    if stage is not None:
        data["stage"] = text_of(stage, MAX_NAME)
    if message is not None:
        data["message"] = text_of(message)
    return data


def ask_data(
    ask: str, text: object, kind: str, options: Iterable[object] | None, deadline: float | None, complain: Complain
) -> dict[str, Any]:
    """`d` of task_confirmation_required. Raises TypeError or ValueError for a wrong kind or deadline: a question that
    cannot be put has no answer, either.
    """
    if kind not in tuple(AskKind):
        raise ValueError(f"kind: {text_of(kind, MAX_NAME)!r} is not one of {', '.join(AskKind)}")
    data: dict[str, Any] = {"ask": ask, "text": text_of(text), "kind": str(kind)}
    if options is not None:
        data["options"] = _options(options, complain)
    if deadline is not None:
        data["deadline"] = check_seconds("deadline", deadline)
    return data


def _options(options: Iterable[object], complain: Complain) -> list[str]:
    """The choices as texts."""
    try:
        given = [options] if isinstance(options, str) else list(islice(options, MAX_OPTIONS + 1))
    except Exception as error:  # whatever a job passes in
        if is_interruption(error):
            raise
        complain("options", "options: expected texts, so viewers may only approve or reject")
        return []
    if len(given) > MAX_OPTIONS:
        complain("options", f"options: more than {MAX_OPTIONS}, so the rest is left out")
    return [text_of(option, MAX_NAME) for option in given[:MAX_OPTIONS]]


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
    return text_of(text, most)


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


def _kind(kind: str | None) -> str | None:
    """Unlike other texts it is refused if it is too long."""
    if kind is None:
        return None
    _check_text("kind", kind)
    if not is_name(kind):
        raise ValueError(f"kind: {kind!r} has control characters")
    if len(kind) > MAX_NAME:
        raise ValueError(f"kind: {len(kind)} characters, at most {MAX_NAME}")
    return text_of(kind)


def _fields(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The application's own fields, as their JSON has them."""
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise TypeError(f"fields: expected a mapping, not {type(fields).__name__}")
    raw, loss = json_value(fields, MAX_FIELDS_BYTES)
    if loss is not None:
        _log.warning("a part of the fields of a task is left out: %s", loss)
    known: dict[str, Any] = msgspec.json.decode(raw)
    return known


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str, not {type(text).__name__}")
