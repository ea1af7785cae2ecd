"""The directory of a task's socket: private, and swept by the next process if its owner was killed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fanline.base.socket_directory import SocketDirectory
from tests.support.paths import ROOT

pytestmark = pytest.mark.process

OWNER = """
import socket, sys
from fanline.base.socket_directory import SocketDirectory
directory = SocketDirectory()
socket.socket(socket.AF_UNIX).bind(directory.socket_path)
print(directory.socket_path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("t")
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def _owner(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a directory, which seems to be old."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", OWNER],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    directory = Path(process.stdout.readline().strip()).parent
    os.utime(directory, (0, 0))
    return process, directory


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_it_is_private_and_nothing_is_left_of_it(temporary: Path) -> None:
    directory = SocketDirectory()
    assert stat.S_IMODE(Path(directory.socket_path).parent.stat().st_mode) == 0o700
    directory.close()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(
    temporary: Path,
) -> None:
    process, left = _owner(temporary)
    try:
        SocketDirectory().close()
        assert left.is_dir()
    finally:
        _kill(process)
    SocketDirectory().close()
    assert list(temporary.iterdir()) == []


def test_one_that_may_not_be_locked_yet_is_left_alone(temporary: Path) -> None:
    process, left = _owner(temporary)
    _kill(process)
    os.utime(left)
    SocketDirectory().close()
    assert left.is_dir()


def test_nothing_but_the_socket_is_ever_removed(temporary: Path) -> None:
    process, left = _owner(temporary)
    _kill(process)
    (left / "notes.txt").write_text("mine")
    os.utime(left, (0, 0))
    SocketDirectory().close()
    assert (left / "notes.txt").exists()


def test_a_link_of_its_name_is_not_followed(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "task.sock").write_text("mine")
    (temporary / "fanline-task-x").symlink_to(tmp_path)
    os.utime(temporary / "fanline-task-x", (0, 0), follow_symlinks=False)
    SocketDirectory().close()
    assert (tmp_path / "task.sock").exists()


def test_a_path_that_is_too_long_for_a_socket_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    long = tmp_path_factory.mktemp("t") / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    directory = SocketDirectory()
    assert len(directory.socket_path) < 100
    assert list(long.iterdir()) == []
    directory.close()
