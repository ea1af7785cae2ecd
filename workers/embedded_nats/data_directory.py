"""The data directory of the embedded nats-server: one server at a time, and how much room there is on its disk."""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from fanline.workers.errors import ServeError
from fanline.workers.state_file import write_private

LOCK_SECONDS = 2.0
"""How long the nats-server of a killed predecessor may take to release the data directory."""
_POLL = 0.02
_BLOCK = 512  # bytes in a unit of st_blocks, see stat(2)


@asynccontextmanager
async def locked(data_dir: Path, owner: str) -> AsyncIterator[int]:
    """Create the directory and lock it; yields the descriptor that holds the lock. The lock file names the owner."""
    lock_fd = _open_lock_file(data_dir)
    try:
        with trio.move_on_after(LOCK_SECONDS) as patience:
            while not _try_lock(lock_fd):  # noqa: ASYNC110  # the holder is another process
                await trio.sleep(_POLL)
        if patience.cancelled_caught:
            raise ServeError(
                f"the data directory {data_dir} is in use by another fanline serve ({_read_owner(lock_fd)}); "
                "stop that one, or give this one its own with --data-dir"
            )
        os.ftruncate(lock_fd, 0)
        os.write(lock_fd, owner.encode())
        yield lock_fd
    finally:
        os.close(lock_fd)


def _open_lock_file(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise unusable(data_dir, error) from None


def _try_lock(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_owner(lock_fd: int) -> str:
    return os.pread(lock_fd, 256, 0).decode(errors="replace") or "owner unknown"


def unusable(data_dir: Path, error: OSError) -> ServeError:
    return ServeError(f"cannot use the data directory {data_dir}: {error.strerror}; choose another with --data-dir")


def free_bytes(data_dir: Path) -> int:
    """The bytes that may still be written there."""
    found = os.statvfs(data_dir)
    return found.f_bavail * found.f_frsize


def used_bytes(data_dir: Path) -> int:
    """The bytes that the store takes on the disk."""
    sizes = 0
    for directory, _, names in os.walk(data_dir / "jetstream"):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                sizes += os.lstat(Path(directory, name)).st_blocks * _BLOCK
    return sizes


def remembered_limit(data_dir: Path, limit: int) -> int:
    """The larger of a limit and the one that was chosen at an earlier start. Raises OSError.

    A disk filled by other programs must not make the store drop what it holds at its next start.
    """
    file, former = data_dir / "store-bytes", 0
    with suppress(OSError, ValueError):
        former = int(file.read_bytes())
    if limit > former:
        write_private(file, b"%d" % limit)
    return max(limit, former)


def adopt_store(data_dir: Path, account: str) -> None:
    """Give an account the streams of the default one, where an earlier version kept them. Raises OSError."""
    former, own = data_dir / "jetstream" / "$G", data_dir / "jetstream" / account
    if former.exists() and not own.exists():
        former.rename(own)
