"""A nursery wraps every exception in a group; at our edges the user gets the exception itself."""

import sys


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The only exception of a nursery's group besides its cancellation; None if there are several."""
    errors = [error for error in group.exceptions if not _is_of_trio(error)]
    return errors[0] if len(errors) == 1 else None


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One cause out of a group, however many nurseries it came through; Ctrl-C takes precedence over errors."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        errors = [each for each in error.exceptions if not _is_of_trio(each)] or error.exceptions
        error = min(errors, key=lambda each: isinstance(each, Exception))
    return error


def _is_of_trio(error: BaseException) -> bool:
    """Whether a nursery raised it to cancel a task. Without Trio, which a job may never import, there is none."""
    trio = sys.modules.get("trio")
    return trio is not None and isinstance(error, trio.Cancelled)
