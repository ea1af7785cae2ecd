"""The directory that holds a task's Unix socket: only its user can enter it, and it is not left behind.

A process that is killed cannot remove its directory. It therefore locks the directory for as long as it lives. The
kernel releases the lock of a dead process, and the next process to create a directory removes those that are unlocked.
"""

import fcntl
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "fanline-task-"
_NAME = "task.sock"
_LONGEST_PATH = 100  # bytes; the kernel takes 107
_SURELY_LOCKED_SECONDS = 60.0
"""A directory of this age is either locked or abandoned: its creator has had time to lock it."""


class SocketDirectory:
    """A private directory for one socket. Creating one raises OSError."""

    def __init__(self) -> None:
        self._directory = _private_directory()
        self.socket_path = str(self._directory / _NAME)
        try:
            self._lock = _locked(self._directory)
        except OSError:
            self._directory.rmdir()
            raise

    def close(self) -> None:
        """Remove the socket and its directory. Call this once."""
        _remove(self._directory)
        os.close(self._lock)


def _private_directory() -> Path:
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # mkdtemp: private, with an unpredictable name
        _sweep(parent)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))  # mode 0700
        if len(os.fsencode(directory / _NAME)) <= _LONGEST_PATH:
            return directory
        directory.rmdir()
    raise OSError("no temporary directory has a path short enough for a socket")


def _sweep(parent: Path) -> None:
    """Remove the directories that killed processes left in `parent`."""
    with suppress(OSError), os.scandir(parent) as entries:
        for each in entries:
            if each.name.startswith(_PREFIX):
                with suppress(OSError):  # locked, owned by another user, or already gone
                    _remove_if_left(Path(each.path))


def _remove_if_left(directory: Path) -> None:
    status = directory.lstat()
    if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _SURELY_LOCKED_SECONDS:
        return
    lock = _locked(directory)
    _remove(directory)
    os.close(lock)


def _locked(directory: Path) -> int:
    """Lock the directory until the returned file descriptor is closed. BlockingIOError if another process holds it."""
    found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        raise
    return found


def _remove(directory: Path) -> None:
    """Remove the directory and its socket, the only file that is ever in it."""
    with suppress(OSError):
        (directory / _NAME).unlink(missing_ok=True)
        directory.rmdir()
