"""Settings of Hypothesis, the marker `process` (tests/support/guards/outside.py), the bound of asynchronous tests
(tests/support/guards/bounded.py), and Ctrl-C as in a terminal.

A failing example prints the blob that replays it; HYPOTHESIS_EXAMPLES sets the length of the search.
"""

import gc
import os
import signal
from collections.abc import Generator
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.guards.bounded import bounded_run
from tests.support.guards.outside import MARKER, kept_inside, needs_marker

settings.register_profile(
    "fanline",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    deadline=None,  # the machine may be busy, and no test is about speed
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fanline")

# A run in the background of a script inherits that SIGINT is ignored, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make quick` imports no module whose tests it would leave out."""
    leaves_out = config.option.markexpr == f"not {MARKER}" and collection_path.match("test_*.py")
    return True if leaves_out and needs_marker(collection_path) else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that leave their process, and run them last: what fails fast is seen first."""
    for item in items:
        if needs_marker(item.path):
            item.add_marker(MARKER)
        if iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=bounded_run))
    items.sort(key=_is_marked)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no collection need look at all of it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    yield from _guarded(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield from _guarded(item)


def _guarded(item: pytest.Item) -> Generator[None, None, None]:
    """Keep a test without the marker, and its fixtures, inside this process."""
    if _is_marked(item):
        yield
    else:
        with kept_inside():
            yield


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None
