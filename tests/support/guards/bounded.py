"""The bound of every asynchronous test with a real clock: it is cancelled, together with its fixtures, and the report
says where each task was waiting. A test that pytest-timeout ends tears Trio apart, and its report says nothing of that.
"""

import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

SECONDS = 400.0
"""Longer than the `trio.fail_after` of any test, shorter than `timeout` in pyproject.toml."""

T = TypeVar("T")


def bounded_run(
    function: Callable[..., Awaitable[T]],
    *args: Any,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """`trio.run` for a test. Only a real clock is bounded: on a mock clock, hours pass in an instant."""
    if clock is None:
        return trio.run(partial(bounded, SECONDS, function, *args), instruments=instruments)
    return trio.run(function, *args, clock=clock, instruments=instruments)


async def bounded(seconds: float, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await `function(*args)`. After `seconds` seconds it is cancelled; the error shows where each task was waiting."""
    where: list[str] = []
    with trio.CancelScope() as scope:
        trio.lowlevel.spawn_system_task(_watch, seconds, scope, where)  # it ends with the run
        return await function(*args)
    raise trio.TooSlowError(f"not done after {seconds:g} s; its tasks were waiting here:\n{''.join(where)}")


async def _watch(seconds: float, scope: trio.CancelScope, where: list[str]) -> None:
    await trio.sleep(seconds)
    root = trio.lowlevel.current_root_task()
    assert root is not None
    where += [_describe(task) for task in _tree(root) if task is not trio.lowlevel.current_task()]
    scope.cancel()


def _tree(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tree(child)


def _describe(task: trio.lowlevel.Task) -> str:
    return f"{task.name}\n{''.join(traceback.StackSummary.extract(task.iter_await_frames()).format())}"
