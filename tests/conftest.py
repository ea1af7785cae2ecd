"""Settings of Hypothesis, and the marker `process` (tests/support/outside.py).

A failing example prints the blob that replays it; HYPOTHESIS_EXAMPLES sets the length of the search.
"""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.outside import MARKER, kept_inside, needs_marker

settings.register_profile(
    "fanline",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    deadline=None,  # the machine may be busy, and no test is about speed
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fanline")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that leave their process, and run them last: what fails fast is seen first."""
    for item in items:
        if needs_marker(item.path):
            item.add_marker(MARKER)
    items.sort(key=_is_marked)


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
