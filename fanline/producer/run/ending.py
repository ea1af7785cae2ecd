"""How the end of a block is reported: which event ends the task, and with which data. Pure."""

from typing import Any

from fanline.base.groups import first_error
from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled, TaskRetrying
from fanline.producer.checks import MAX_SECONDS
from fanline.producer.values.amount import amount_of
from fanline.producer.values.text import text_of
from fanline.producer.waiting import is_cancellation
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.text import harmless


def final_event(error: BaseException | None, value: Any) -> tuple[TaskEvent, dict[str, Any]]:
    """The last event of a task whose block ended with `error`, or without one, and whose result is `value`."""
    result = {} if value is None else {"result": value}
    if error is None or (isinstance(error, SystemExit) and _is_zero(error.code)):
        return TaskEvent.COMPLETED, result
    if isinstance(error, BaseExceptionGroup) and error.split(TaskCancelled)[1] is None:
        error = first_error(error)
    if isinstance(error, TaskCancelled):
        return TaskEvent.CANCELLED, {} if error.by is None else {"by": harmless(text_of(error.by, 256))[:256]}
    if isinstance(error, TaskRetrying):
        return TaskEvent.RETRYING, _retrying(error)
    if is_cancellation(error):
        return TaskEvent.CANCELLED, {}
    return TaskEvent.FAILED, {"error": text_of(_text_of(error)), **result}


def _is_zero(code: object) -> bool:
    """Whether a program that exits with this code has ended well."""
    return code is None or (type(code) is int and code == 0)


def _retrying(error: TaskRetrying) -> dict[str, Any]:
    why = error.reason if error.__cause__ is None or error.reason is not None else _text_of(error.__cause__)
    data: dict[str, Any] = {} if why is None else {"error": text_of(why)}
    delay = None if error.delay is None else amount_of("delay", error.delay, MAX_SECONDS, lambda what, text: None)
    return data if delay is None else data | {"delay": delay}


def _text_of(error: BaseException) -> str:
    """What viewers read about an error; for a group, its first error.

    Our own errors are sentences. Of other errors the type says more than the text, which may itself raise.
    """
    if isinstance(error, BaseExceptionGroup):
        error = first_error(error)
    try:
        return str(error) if isinstance(error, FanlineError) else f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001  # a broken __str__
        return type(error).__name__
