"""The application's functions: found by name, and called so that none of them holds up the others for ever."""

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fanline.protocol.handlers import HandlerError, parse_handler
from fanline.workers.handlers.functions import FunctionCalls, LoadError, load_function

MODULE = """
class Users:
    @staticmethod
    def known(request): return "known"
async def ask(request): return request
value = 7
"""

SECONDS = 0.3
"""For calls of which some are given up and others have to be in time, on a busy machine too."""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_is_found_in_its_module_also_inside_a_class(modules: Path) -> None:
    (modules / "some_app.py").write_text(MODULE)
    assert load_function(parse_handler("some_app:Users.known"))(None) == "known"
    assert inspect.iscoroutinefunction(load_function(parse_handler("some_app:ask")))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_app:f", "cannot import no_such_app for the handler no_such_app:f: ModuleNotFoundError"),
        ("some_app:nothing", "some_app has no nothing"),
        ("some_app:Users.nothing", "some_app has no Users.nothing"),
        ("some_app:value", "is no function"),
        ("broken_app:f", "ZeroDivisionError: division by zero"),
        ("needy_app:f", "No module named 'no_such_library'"),
        ("leaving_app:f", "cannot import leaving_app for the handler leaving_app:f: SystemExit: no DATABASE_URL"),
    ],
)
def test_one_that_cannot_be_found_is_one_sentence(modules: Path, name: str, words: str) -> None:
    (modules / "some_app.py").write_text(MODULE)
    (modules / "broken_app.py").write_text("1 / 0")
    (modules / "needy_app.py").write_text("import no_such_library")
    (modules / "leaving_app.py").write_text("raise SystemExit('no DATABASE_URL')")
    with pytest.raises(LoadError, match=words):
        load_function(parse_handler(name))


def test_the_log_says_where_the_fault_of_a_module_is_and_nothing_of_one_that_is_missing(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (modules / "broken_app.py").write_text("1 / 0")
    for name in ("no_such_app:f", "broken_app:f"):
        with pytest.raises(LoadError):
            load_function(parse_handler(name))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "broken_app" in record.getMessage()


# --- calls --------------------------------------------------------------------------------------------------------


async def slowly(request: Any) -> Any:
    await asyncio.sleep(request)
    return request


def call(function: Any, request: Any = None, seconds: float = 5.0) -> Any:
    async def main() -> Any:
        return await FunctionCalls(seconds, on_stuck=lambda: None).call(function, request)

    return asyncio.run(main())


def test_a_coroutine_function_runs_in_the_loop_and_any_other_in_a_thread() -> None:
    async def here(_: Any) -> threading.Thread:
        return threading.current_thread()

    assert call(here) is threading.main_thread()
    assert call(lambda _: threading.current_thread()) is not threading.main_thread()


def test_a_function_that_returns_a_coroutine_is_waited_for() -> None:
    assert call(lambda request: slowly(request), 0) == 0


@pytest.mark.parametrize("seconds", [0.05])
def test_a_call_that_is_not_done_in_time_is_given_up(seconds: float) -> None:
    with pytest.raises(HandlerError, match=r"not done within 0\.05 s"):
        call(slowly, 60, seconds)


def test_what_a_function_raises_is_the_callers() -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(broken)


def raises_in_a_thread(error: BaseException) -> Any:
    def broken(_: Any) -> None:
        raise error

    return broken


def raises_in_the_loop(error: BaseException) -> Any:
    async def broken(_: Any) -> None:
        raise error

    return broken


@pytest.mark.parametrize("broken", [raises_in_a_thread, raises_in_the_loop])
@pytest.mark.parametrize(
    "error",
    [
        *(StopIteration(), StopAsyncIteration(), SystemExit(3), KeyboardInterrupt()),
        *(asyncio.CancelledError(), GeneratorExit(), BaseException()),
    ],
)
def test_what_asyncio_cannot_pass_on_ends_neither_the_process_nor_the_time_of_the_call(
    broken: Any, error: BaseException
) -> None:
    async def main() -> None:
        calls = FunctionCalls(20.0, on_stuck=lambda: None, places=1)
        for _ in range(2):  # the place is given back
            with pytest.raises((RuntimeError, StopAsyncIteration)):
                await calls.call(broken(error), None)

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 10


def test_calls_run_beside_each_other_up_to_a_number_and_the_others_wait() -> None:
    running = most = 0

    async def busy(_: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _turn in range(3):
            await asyncio.sleep(0)
        running -= 1

    async def main() -> None:
        calls = FunctionCalls(30.0, on_stuck=lambda: None, places=4)
        await asyncio.gather(*(calls.call(busy, None) for _ in range(20)))

    asyncio.run(main())
    assert most == 4


def test_a_thread_that_was_given_up_keeps_its_place_until_it_ends() -> None:
    release = threading.Event()

    async def main() -> None:
        stuck = asyncio.Event()
        calls = FunctionCalls(0.1, stuck.set, places=2, grace=0.0)
        with pytest.raises(HandlerError, match="not done"):
            await calls.call(lambda _: release.wait(30), None)
        assert await calls.call(lambda _: True, None)
        assert not stuck.is_set()
        with pytest.raises(HandlerError, match="not done"):
            await calls.call(lambda _: release.wait(30), None)
        with pytest.raises(HandlerError, match="too many calls"):
            await calls.call(lambda _: True, None)
        assert stuck.is_set()
        release.set()
        while True:  # the loop has to hear that the threads have ended
            try:
                assert await calls.call(lambda _: True, None)
            except HandlerError:
                continue
            return

    asyncio.run(main())


async def given_up(calls: FunctionCalls, function: Any, times: int) -> None:
    for _ in range(times):
        with pytest.raises(HandlerError, match="not done"):
            await calls.call(function, None)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_threads_that_do_not_end_are_abandoned_and_their_places_free_until_no_spare_ones_are_left() -> None:
    release, stuck = threading.Event(), list[int]()

    async def main() -> None:
        calls = FunctionCalls(SECONDS, lambda: stuck.append(calls.stuck), places=2, spares=4, grace=0.0)
        for abandoned in (2, 4):
            await given_up(calls, lambda _: release.wait(30), 2)
            await until(lambda expected=abandoned: calls.stuck == expected)
            assert await calls.call(lambda _: True, None)
        assert not stuck
        await given_up(calls, lambda _: release.wait(30), 2)
        await until(lambda: stuck == [6])
        with pytest.raises(HandlerError, match="too many calls"):
            await calls.call(lambda _: True, None)
        release.set()
        await until(lambda: calls.stuck == 0)
        assert await asyncio.gather(*(calls.call(lambda _: True, None) for _ in range(20))) == [True] * 20

    asyncio.run(main())


def test_a_spare_place_that_becomes_free_frees_a_place() -> None:
    first, others = threading.Event(), threading.Event()

    async def main() -> None:
        calls = FunctionCalls(SECONDS, lambda: None, places=1, spares=1, grace=0.0)
        await given_up(calls, lambda _: first.wait(30), 1)
        await until(lambda: calls.stuck == 1)
        await given_up(calls, lambda _: others.wait(30), 1)
        await until(lambda: calls.stuck == 2)
        first.set()
        await until(lambda: calls.stuck == 1)
        assert await calls.call(lambda _: True, None)
        others.set()

    asyncio.run(main())


def test_a_client_whose_calls_were_abandoned_holds_its_part_until_they_end() -> None:
    release = threading.Event()

    async def main() -> None:
        calls = FunctionCalls(SECONDS, lambda: None, places=4, spares=4, grace=0.0)
        with pytest.raises(HandlerError, match="not done"):
            await calls.call(lambda _: release.wait(30), None, "anna")
        await until(lambda: calls.stuck == 1)
        with pytest.raises(HandlerError, match="too many calls"):
            await calls.call(lambda _: True, None, "anna")
        assert await calls.call(lambda _: True, None, "bob")
        release.set()

    asyncio.run(main())


def test_a_coroutine_that_was_given_up_is_cancelled_and_gives_its_place_back() -> None:
    ended = list[str]()

    async def waits(_: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        stuck = asyncio.Event()
        calls = FunctionCalls(0.05, stuck.set, places=1, grace=0.05)
        for _ in range(3):
            with pytest.raises(HandlerError, match="not done"):
                await calls.call(waits, None)
        await asyncio.sleep(0.2)  # for a look at what was given up
        assert not stuck.is_set()

    asyncio.run(main())
    assert ended == ["cancelled"] * 3


def test_a_coroutine_that_will_not_be_cancelled_keeps_its_place() -> None:
    async def stubborn(_: Any) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)

    async def main() -> None:
        stuck = asyncio.Event()
        calls = FunctionCalls(0.05, stuck.set, places=1, grace=0.0)
        with pytest.raises(HandlerError, match="not done"):
            await calls.call(stubborn, None)
        with pytest.raises(HandlerError, match="too many"):
            await calls.call(stubborn, None)
        assert stuck.is_set()

    asyncio.run(main())
