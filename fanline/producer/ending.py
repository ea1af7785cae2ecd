"""How the end of a block is reported: which event ends the task, and with which data. Pure."""

from typing import Any

from fanline.errors import FanlineError
from fanline.groups import first_error
from fanline.producer.calls import TaskCancelled
from fanline.producer.checks import short
from fanline.producer.waiting import is_cancellation
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.text import harmless


def final_event(error: BaseException | None, value: Any) -> tuple[TaskEvent, dict[str, Any]]:
    """The last event of a task whose block ended with `error`, or without one, and whose result is `value`."""
    result = {} if value is None else {"result": value}
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return TaskEvent.COMPLETED, result
    if isinstance(error, BaseExceptionGroup) and error.split(TaskCancelled)[1] is None:
        error = first_error(error)
    if isinstance(error, TaskCancelled):
        return TaskEvent.CANCELLED, {} if error.by is None else {"by": harmless(short("by", error.by, 256))[:256]}
    if is_cancellation(error):
        return TaskEvent.CANCELLED, {}
    return TaskEvent.FAILED, {"error": short("error", _text_of(error)), **result}


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
