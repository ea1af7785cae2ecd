"""Our own code, broken for a test, and what is said of that."""

import logging
from collections.abc import Callable
from typing import Any

import pytest


def raise_zero_division(*_: Any) -> None:
    """In the place of what is broken."""
    raise ZeroDivisionError


def breaking(function: Callable[..., Any], is_poisoned: Callable[..., bool]) -> Callable[..., Any]:
    """The function, but for calls that are poisoned: these raise."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        if is_poisoned(*args):
            raise ZeroDivisionError
        return function(*args, **kwargs)

    return broken


def faults_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]
