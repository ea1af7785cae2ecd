"""Exceptions that a signal handler raises, wherever the job happens to be: they are meant for the job."""

import signal
import types
from typing import Any

_trace_of = BaseException.__dict__["__traceback__"].__get__  # a class of the job's may have one of its own


def is_interruption(error: BaseException) -> bool:
    """Whether a signal handler has raised this: Celery's soft time limit, RQ's timeout, an alarm of the job's own.

    It may strike while a value of the job is being read, where any other exception is the value's fault.
    """
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    trace: types.TracebackType | None = _trace_of(error)
    while trace is not None and handlers:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> types.CodeType | None:
    """Of a handler that is a function or a method in Python."""
    function = handler.__func__ if isinstance(handler, types.MethodType) else handler
    return function.__code__ if isinstance(function, types.FunctionType) else None
