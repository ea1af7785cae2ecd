"""A nursery wraps every exception in a group; at our edges the user gets the exception itself."""

import trio


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The only exception of a nursery's group besides its cancellation; None if there are several."""
    errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    return errors[0] if len(errors) == 1 else None


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One cause out of a group, however many nurseries it came through; Ctrl-C takes precedence over errors."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        errors = [each for each in error.exceptions if not isinstance(each, trio.Cancelled)] or error.exceptions
        error = min(errors, key=lambda each: isinstance(each, Exception))
    return error
