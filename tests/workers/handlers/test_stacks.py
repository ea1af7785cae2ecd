"""Where the application's code is that does not end."""

import asyncio
import faulthandler
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fanline.workers.handlers import stacks
from fanline.workers.handlers.functions import FunctionCalls, TooLateError


async def _nap_deep_inside() -> None:
    await asyncio.sleep(60)


async def nap(_: Any) -> None:
    await _nap_deep_inside()


class _Forever:
    def __await__(self) -> Any:
        yield from asyncio.get_running_loop().create_future().__await__()


async def wait_for_an_object(_: Any) -> None:
    await _Forever()


def late(function: Callable[[Any], Any]) -> str:
    """What is said of a function that is not done in time."""

    async def main() -> str:
        with pytest.raises(TooLateError) as caught:
            await FunctionCalls(0.1, on_stuck=lambda: None).call(function, None)
        return "\n".join(caught.value.__notes__)

    return asyncio.run(main())


def test_a_coroutine_is_shown_down_to_what_it_awaits() -> None:
    shown = late(nap)
    assert shown.index("in nap\n") < shown.index("in _nap_deep_inside\n") < shown.index("in sleep\n")


def test_a_coroutine_that_awaits_an_object_is_shown_as_far_as_it_can_be() -> None:
    assert "in wait_for_an_object\n" in late(wait_for_an_object)


def test_a_function_in_a_thread_is_shown_where_it_is() -> None:
    released = threading.Event()

    def block(_: Any) -> None:
        released.wait(60)

    async def main() -> str:
        calls = FunctionCalls(0.1, on_stuck=lambda: None)
        with pytest.raises(TooLateError) as caught:
            await calls.call(block, None)
        released.set()
        return "\n".join(caught.value.__notes__)

    shown = asyncio.run(main())
    assert "in block\n" in shown
    assert "released.wait(60)" in shown


def test_one_that_returns_something_to_await_is_shown_in_what_it_returned() -> None:
    assert "in _nap_deep_inside\n" in late(lambda _: _nap_deep_inside())


def test_a_loop_that_is_blocked_again_and_again_is_reported_once_in_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits = list[float]()
    monkeypatch.setattr(stacks, "BLOCKED_SECONDS", 0.05)
    monkeypatch.setattr(stacks, "_TICK_SECONDS", 0.0)
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, file: waits.append(seconds))

    async def main() -> None:
        watching = asyncio.create_task(stacks.watch_loop(4.0))
        for _ in range(5):
            await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251  # it is what the test is about
        watching.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert caplog.text.count("has blocked the loop") == 1
    assert waits[0] == 0.05
    assert set(waits[2:]) == {2.0}  # one that may end in a kill is reported all the same
