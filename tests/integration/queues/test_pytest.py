"""`pytest --fanline`: what viewers see of a test run."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.integration.queues.jobs.streams import listening
from tests.support.servers.serve import Serve, serve_environ

TESTS = """
import pytest

@pytest.fixture
def broken():
    raise LookupError("no such fixture value")

@pytest.mark.parametrize("n", range(4))
def test_fine(n):
    pass

def test_bad():
    assert 1 + 1 == 3

def test_broken(broken):
    pass

@pytest.mark.skip
def test_skipped():
    pass
"""
SLOW = "import time, pytest\n@pytest.mark.parametrize('n', range(3000))\ndef test_slow(n): time.sleep(0.02)\n"
CRASHING = """
import os, signal, pytest

@pytest.mark.parametrize("n", range(6))
def test_fine(n):
    pass

def test_crash():
    os.kill(os.getpid(), signal.SIGKILL)
"""
XDIST = ("-p", "xdist", "-n", "2")
COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "pytest",
    "-p",
    "no:cacheprovider",
    "-p",
    "fanline.pytest_plugin",
    "-q",
    "test_some.py",
)


async def _pytest(
    serve: Serve, directory: Path, *options: str, task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> subprocess.CompletedProcess[bytes]:
    run = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False)
    env = serve_environ(serve.directory) | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"
    }  # of the others, which take their time
    return await run([*COMMAND, *options], cwd=directory, env=env, task_status=task_status)


async def test_a_test_run_is_a_task_with_its_failures_and_its_counts(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    with trio.fail_after(60):
        async with listening(serve.url) as streams:
            ended = await _pytest(serve, tmp_path, "--fanline=nightly")
            assert ended.returncode == 1, ended.stdout
            failed = await streams.wait("nightly")
            snapshot = await streams.snapshot("nightly")
            async with streams.client.task("nightly") as task:
                log = [line.text for line in task.output]
    assert failed["error"] == "1 failed, 1 errors, 4 passed, 1 skipped"
    assert failed["result"] == {"passed": 4, "failed": 1, "errors": 1, "skipped": 1, "exit_code": 1}
    assert (snapshot.done, snapshot.total, snapshot.stage, snapshot.kind) == (7, 7, "test_some.py", "pytest")
    assert "FAILED test_some.py::test_bad" in log
    assert "ERROR test_some.py::test_broken" in log
    assert any("assert (1 + 1) == 3" in line for line in log)


async def test_a_run_that_passes_is_completed_and_the_second_is_its_next_attempt(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("def test_fine(): pass")
    with trio.fail_after(60):
        async with listening(serve.url) as streams:
            for _ in range(2):
                ended = await _pytest(serve, tmp_path, "--fanline=again")
                assert ended.returncode == 0, ended.stdout
            await streams.wait("again", "task_completed", count=2)
            assert streams.kinds("again") == ["started 1", "completed 1", "started 2", "completed 2"]


async def test_a_viewer_stops_a_test_run(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SLOW)
    with trio.fail_after(60):
        async with listening(serve.url) as streams, trio.open_nursery() as nursery:
            nursery.start_soon(_pytest, serve, tmp_path, "--fanline=slow")
            await streams.wait("slow", "task_progress")
            async with streams.client.task("slow", by="ann") as task:
                await task.cancel()
            assert (await streams.wait("slow"))["by"] == "ann"


async def test_an_id_that_no_task_can_have_is_an_error_of_usage(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    with trio.fail_after(60):
        ended = await _pytest(serve, tmp_path, "--fanline=a b")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert b"not a task id: 'a b'" in ended.stderr


async def test_without_the_option_nothing_of_fanline_is_imported(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    ours = {name for name in sys.modules if name.partition('.')[0] == 'fanline'}\n"
        "    assert ours <= {'fanline', 'fanline.pytest_plugin'}\n"
    )
    with trio.fail_after(60):
        ended = await _pytest(serve, tmp_path)
    assert ended.returncode == 0, ended.stdout


async def test_a_run_in_several_processes_is_one_task_and_counts_what_crashes(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(CRASHING)
    with trio.fail_after(120):
        async with listening(serve.url) as streams:
            ended = await _pytest(serve, tmp_path, "--fanline=spread", *XDIST)
            assert ended.returncode == 1, ended.stdout
            failed = await streams.wait("spread")
            assert streams.kinds("spread") == ["started 1", "failed 1"]
            snapshot = await streams.snapshot("spread")
            async with streams.client.task("spread") as task:
                log = [line.text for line in task.output]
    assert failed["error"] == "1 failed, 6 passed"
    assert (snapshot.done, snapshot.total) == (7, 7)
    assert "FAILED test_some.py::test_crash" in log
    assert any("crashed while running 'test_some.py::test_crash'" in line for line in log)


async def test_a_viewer_stops_a_run_in_several_processes(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SLOW)
    with trio.fail_after(120):
        async with listening(serve.url) as streams, trio.open_nursery() as nursery:
            nursery.start_soon(_pytest, serve, tmp_path, "--fanline=many", *XDIST)
            await streams.wait("many", "task_progress", count=2)  # the first says how many there are
            async with streams.client.task("many", by="ann") as task:
                await task.cancel()
            assert (await streams.wait("many"))["by"] == "ann"
            snapshot = await streams.snapshot("many")
            assert snapshot.done is not None
            assert snapshot.done < 3000


async def test_ctrl_c_cancels_a_run_in_several_processes(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SLOW)
    with trio.fail_after(120):
        async with listening(serve.url) as streams, trio.open_nursery() as nursery:
            process = await nursery.start(_pytest, serve, tmp_path, "--fanline=ctrl-c", *XDIST)
            await streams.wait("ctrl-c", "task_progress", count=2)
            process.send_signal(signal.SIGINT)
            await streams.wait("ctrl-c")
            assert streams.kinds("ctrl-c") == ["started 1", "cancelled 1"]


async def test_a_run_that_stops_after_its_first_failure_has_failed(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    with trio.fail_after(120):
        async with listening(serve.url) as streams:
            await _pytest(serve, tmp_path, "--fanline=first", "-x", *XDIST)
            assert "1 failed" in (await streams.wait("first", "task_failed"))["error"]
