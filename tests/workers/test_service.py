"""Keeping a process alive, with small programs in place of workers that report on the pipe as a worker does."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError, first_leaf
from fanline.workers.supervision import service
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.service import keep_running
from fanline.workers.supervision.slot import WorkerSlot
from tests.support.servers.serve import alive as is_alive
from tests.support.servers.serve import wait_until

PREAMBLE = """
import json, os, signal, sys, time
order = json.load(sys.stdin)
def tell(text):
    os.write(order["report_fd"], text.encode())
    os.close(order["report_fd"])
"""
SERVES = "tell('ready'); time.sleep(60)"
BEATS = """
os.write(order["report_fd"], b'ready\\n')
for _ in range(600):
    os.write(order["report_fd"], b'.'); time.sleep(0.1)
"""
BEATS_ONCE = """
os.write(order["report_fd"], b'ready\\n.')
time.sleep(60)
"""
REFUSES = "tell('the bus is away'); sys.exit(1)"
CRASHES = "os.kill(os.getpid(), signal.SIGKILL)"
HANGS = "time.sleep(60)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell('ready'); time.sleep(60)"
SERVES_ONLY_ONCE = """
try:
    os.mkdir(order["settings"]["data_dir"])
except FileExistsError:
    tell('the bus is away')
else:
    tell('ready'); time.sleep(60)
"""


@asynccontextmanager
async def slot_of(
    code: str, data_dir: str = "unused", drain_timeout: float = 5.0, hang_timeout: float = 15.0
) -> AsyncIterator[WorkerSlot]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(data_dir=data_dir, drain_timeout=drain_timeout, hang_timeout=hang_timeout)
        yield WorkerSlot(0, listener, settings, (sys.executable, "-c", PREAMBLE + code))


async def replaced(alive: set[Child], old: Child) -> Child:
    await wait_until(lambda: bool(alive) and old not in alive)
    (child,) = alive
    return child


async def test_it_has_started_when_the_process_reports_that_it_is_ready() -> None:
    alive: set[Child] = set()
    async with slot_of(SERVES) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(keep_running, slot, alive)
        (child,) = alive
        assert child.ending is None
        nursery.cancel_scope.cancel()
    assert alive == set()
    assert child.ending == "signal 15"


async def test_a_killed_process_is_replaced_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    alive: set[Child] = set()
    async with slot_of(SERVES) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(keep_running, slot, alive)
            (first,) = alive
            os.kill(first.pid, signal.SIGKILL)
            second = await replaced(alive, first)
            await wait_until(lambda: "is back" in caplog.text)
        assert second.pid != first.pid
        assert f"worker 0 (pid {first.pid}) died (signal 9), restarting\n" in caplog.text
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(REFUSES, "worker 0: the bus is away"), (CRASHES, "worker 0: ended before it was ready (signal 9)")],
)
async def test_a_process_that_never_was_ready_is_an_error_with_its_reason(code: str, sentence: str) -> None:
    async with slot_of(code) as slot:
        with trio.fail_after(10), pytest.raises((ServeError, BaseExceptionGroup)) as caught:
            async with trio.open_nursery() as nursery:
                await nursery.start(keep_running, slot, set())
    assert str(first_leaf(caught.value)) == sentence


async def test_a_process_that_hangs_at_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READY_SECONDS", 0.2)
    alive: set[Child] = set()
    async with slot_of(HANGS) as slot:
        with trio.fail_after(10), pytest.raises(ServeError, match="worker 0 was not ready within"):
            await keep_running(slot, alive)
    assert alive == set()


async def test_a_missing_program_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        slot = WorkerSlot(0, listener, Settings(data_dir="unused"), ("/nonexistent/program",))
        with pytest.raises(ServeError, match="worker 0 cannot be started: No such file"):
            await keep_running(slot, set())


async def test_a_replacement_that_fails_is_retried_and_its_reason_logged(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    alive: set[Child] = set()
    async with slot_of(SERVES_ONLY_ONCE, data_dir=str(tmp_path / "mark")) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(keep_running, slot, alive)
            next(iter(alive)).kill()
            await wait_until(lambda: "worker 0: the bus is away, restarting in 0.1 s" in caplog.text)
        nursery.cancel_scope.cancel()


async def test_a_process_that_does_not_end_in_time_is_killed_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alive: set[Child] = set()
    async with slot_of(STUBBORN, drain_timeout=0) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(keep_running, slot, alive)
        (child,) = alive
        nursery.cancel_scope.cancel()
    assert not is_alive(child.pid)
    assert "did not end in 1.5 s: killed" in caplog.text


async def test_a_worker_that_stops_beating_is_killed_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    alive: set[Child] = set()
    async with slot_of(BEATS_ONCE, hang_timeout=0.5) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(keep_running, slot, alive)
            (first,) = alive
            await replaced(alive, first)
        assert f"worker 0 (pid {first.pid}) hung for 0.5 s: killing it" in caplog.text
        assert f"worker 0 (pid {first.pid}) died (signal 9), restarting" in caplog.text
        nursery.cancel_scope.cancel()


async def test_a_worker_that_beats_is_left_alone() -> None:
    alive: set[Child] = set()
    async with slot_of(BEATS, hang_timeout=1.0) as slot, trio.open_nursery() as nursery:
        with trio.fail_after(30):
            await nursery.start(keep_running, slot, alive)
            (first,) = alive
            with trio.move_on_after(2):
                await first.wait()
        assert first.ending is None
        nursery.cancel_scope.cancel()
