"""No asynchronous test waits for ever, and the report of one that would says where."""

import tomllib

import pytest
import trio

from tests.support.guards.bounded import SECONDS, bounded, bounded_run
from tests.support.paths import ROOT


async def wait_in_vain() -> None:
    await trio.sleep_forever()


async def wait_in_two_tasks() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_in_vain)
        await trio.Event().wait()


def test_a_test_that_waits_in_vain_is_cancelled_and_its_report_says_where_each_task_waited() -> None:
    with pytest.raises(trio.TooSlowError) as caught:
        trio.run(bounded, 0.01, wait_in_two_tasks)
    report = str(caught.value)
    for line in ("await trio.sleep_forever()", "await trio.Event().wait()"):
        assert line in report


def test_a_test_within_the_bound_passes_on_what_it_returns_and_raises() -> None:
    async def give() -> int:
        return 7

    async def fail() -> None:
        raise KeyError

    assert bounded_run(give) == 7
    with pytest.raises(KeyError):
        bounded_run(fail)


async def test_every_asynchronous_test_has_the_bound() -> None:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    assert any(task.name.endswith("._watch") for nursery in root.child_nurseries for task in nursery.child_tasks)


def test_the_bound_comes_before_the_end_by_pytest_timeout() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["timeout"] > SECONDS
