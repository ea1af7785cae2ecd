"""Child processes end when asked to, and never outlive their parent."""

import errno
import os
import sys
from pathlib import Path

import pytest
import trio

from fanline.workers.supervision.child import Child
from tests.support.paths import ROOT
from tests.support.servers.serve import alive, children_of, wait_until

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'up'); time.sleep(60)"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


async def test_the_end_of_a_child_is_reported_with_its_exit_code() -> None:
    child = Child(python("raise SystemExit(3)"))
    assert child.ending is None or child.ending == "exit code 3"
    with trio.fail_after(10):
        await child.wait()
    assert child.ending == "exit code 3"
    child.close()


def test_a_child_that_cannot_be_watched_is_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def no_file_left(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_file_left)
    files = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Too many open files"):
        Child(python(SLEEP), stdin=b"x")
    assert not Path(f"/proc/{started[0]}").exists()
    assert set(Path("/proc/self/fd").iterdir()) == files


async def test_a_child_reads_its_stdin() -> None:
    child = Child(python("import sys; sys.exit(len(sys.stdin.read()))"), stdin=b"x" * 42)
    with trio.fail_after(10):
        await child.wait()
    assert child.ending == "exit code 42"
    child.close()


async def test_a_child_that_ends_on_sigterm_is_not_killed() -> None:
    child = Child(python(SLEEP))
    with trio.fail_after(10):
        assert await child.stop(5)
    assert child.ending == "signal 15"
    child.close()


async def test_a_child_that_ignores_sigterm_is_killed_at_the_deadline() -> None:
    read_end, write_end = os.pipe()
    child = Child(python(STUBBORN), stdout=write_end)
    os.close(write_end)
    with trio.fail_after(10):
        async with trio.lowlevel.FdStream(read_end) as stdout:
            assert await stdout.receive_some() == b"up"
        assert not await child.stop(0.1)
    assert child.ending == "signal 9"
    child.close()


async def test_stopping_a_child_that_has_ended_is_no_error() -> None:
    child = Child(python("pass"))
    with trio.fail_after(10):
        await child.wait()
        assert await child.stop(1)
    child.kill()
    child.close()


async def test_a_child_is_in_a_process_group_of_its_own() -> None:
    child = Child(python(SLEEP))
    assert os.getpgid(child.pid) == child.pid
    with trio.fail_after(10):
        await child.stop(5)
    child.close()


async def test_a_grandchild_dies_with_its_parent_even_if_that_is_killed() -> None:
    module = Child.__module__
    code = f"from {module} import Child; import sys, time; Child((sys.executable, '-c', {SLEEP!r})); time.sleep(60)"
    parent = Child(python(code), environ={**os.environ, "PYTHONPATH": str(ROOT)})
    seen: list[
        tuple[int, str]
    ] = []  # kept, since a process that is executing its program has no command line for a moment

    def has_child() -> bool:
        seen.extend(children_of(parent.pid))
        return bool(seen)

    await wait_until(has_child)
    grandchild = seen[0][0]
    parent.kill()
    await parent.wait()
    parent.close()
    await wait_until(lambda: not alive(grandchild))
