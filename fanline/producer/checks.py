"""What a job may say: its arguments become the data of events, or TypeError or ValueError at the call."""

import json
import logging
import math
import numbers
import os
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import check_value
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import NatsError, parse_url
from fanline.protocol.tasks.events import MAX_OPTIONS, MAX_TEXT, AskKind

MAX_JSON_BYTES = 512 * 1024
"""Of a result or an answer: half of what NATS takes unless told otherwise."""
MAX_NAME = 256
_MAX_SECONDS = 31_536_000.0
_MAX_AMOUNT = 1e300
_log = logging.getLogger("fanline")
_ROUNDING = 1e-6  # what adding up percents may come to beyond 100


class TaskSettings(NamedTuple):
    """What a Task was made with, checked."""

    id: str
    title: str | None
    kind: str | None
    attempt: int | None
    heartbeat: float
    timeout: float | None
    nats: str | None
    linger: float

    @property
    def channel(self) -> str:
        return f"task:{self.id}"


def check_settings(settings: TaskSettings) -> TaskSettings:
    """The same, if a task can be run so. Raises TypeError or ValueError."""
    try:
        check_channel(settings.channel)
    except MessageError as error:
        raise ValueError(f"not the id of a task: {settings.id!r} ({error})") from None
    for name in ("title", "kind"):
        text = getattr(settings, name)
        if text is not None and (_is_text(name, text) and len(text) > MAX_NAME):
            raise ValueError(f"{name}: {len(text)} characters, at most {MAX_NAME}")
    if settings.attempt is not None and not 1 <= _integer("attempt", settings.attempt) <= 1_000_000:
        raise ValueError(f"attempt: {settings.attempt} is not in 1-1000000")
    check_seconds("heartbeat", settings.heartbeat)
    check_seconds("linger", settings.linger, zero=True)
    if settings.timeout is not None:
        check_seconds("timeout", settings.timeout)
    if settings.nats is not None:
        _check_url(settings.nats)
    title, kind = (None if text is None else short("title", text) for text in (settings.title, settings.kind))
    return settings._replace(title=title, kind=kind)


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """A span of time up to a year."""
    seconds = number(name, value, _MAX_SECONDS)
    if seconds == 0 and not zero:
        raise ValueError(f"{name}: 0 seconds are too few")
    return seconds


def progress_data(
    percent: float | None, message: str | None, stage: str | None, done: float | None, total: float | None
) -> dict[str, Any]:
    """`d` of task_progress: what is not said is left out."""
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
        raise ValueError(f"kind: {kind!r} is none of {', '.join(AskKind)}")
    data: dict[str, Any] = {"ask": ask, "text": short("text", text), "kind": str(kind)}
    if options is not None:
        if len(options) > MAX_OPTIONS:
            raise ValueError(f"options: {len(options)}, at most {MAX_OPTIONS}")
        data["options"] = [short("options", option, MAX_NAME) for option in options]
    if deadline is not None:
        data["deadline"] = check_seconds("deadline", deadline)
    return data


def number(name: str, value: float, most: float) -> float:
    """A finite number from 0 to `most`; of any library."""
    given: object = value
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise TypeError(f"{name}: a number is expected, not {type(given).__name__}")
    try:
        plain = int(given) if isinstance(given, numbers.Integral) and given < 2**63 else float(given)
    except OverflowError:
        plain = math.inf
    if not 0 <= plain <= most or not math.isfinite(plain):
        raise ValueError(f"{name}: {value} is not in 0-{most:g}")
    return plain


def short(name: str, text: str, most: int = MAX_TEXT) -> str:
    """A text that any receiver takes: what is too much is cut, what UTF-8 cannot hold replaced."""
    _is_text(name, text)
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def json_of(value: Any, what: str) -> msgspec.Raw:
    """A value as JSON; NaN and infinities become null. Raises TypeError or ValueError if JSON, or an envelope, cannot
    hold it.
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
        raise ValueError(f"{what} of {len(encoded)} bytes is too large: at most {MAX_JSON_BYTES}")
    return msgspec.Raw(encoded)


def environment_url() -> str | None:
    """The first URL of $NATS_URL; None if there is none, or none that can be read: a job does not fail for that."""
    url = os.environ.get("NATS_URL", "").partition(",")[0].strip()
    if not url:
        return None
    try:
        parse_url(url)
    except NatsError as error:
        _log.warning("NATS_URL is left aside: %s", error)
        return None
    return url


def _is_text(name: str, text: object) -> bool:
    if not isinstance(text, str):
        raise TypeError(f"{name}: a str is expected, not {type(text).__name__}")
    return True


def _check_url(url: str) -> None:
    try:
        parse_url(url)
    except NatsError as error:
        raise ValueError(str(error)) from None


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: an int is expected, not {type(value).__name__}")
    return value
