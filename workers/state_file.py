"""Writes the file that protocol.serve_state describes while the server runs, and removes it at the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fanline.protocol.serve_state import ServeState, decode_state, encode_state, newest_server, state_file_name
from fanline.workers.errors import ServeError


@contextmanager
def published(state: ServeState, directory: Path, port: int) -> Iterator[Path]:
    """`directory`/serve-`port`.json stands while the block runs, mode 0600; ServeError if it cannot be written."""
    path = directory / state_file_name(port)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, encode_state(state))
    except OSError as error:
        raise ServeError(
            f"cannot write {path}: {error.strerror}; set FANLINE_STATE_DIR to a directory that you own"
        ) from None
    try:
        yield path
    finally:
        _remove_own(path, state)


def running_server(directory: Path, port: int) -> ServeState | None:
    """The live server of this user on that port, as its state file describes it."""
    with suppress(OSError):
        return newest_server([(directory / state_file_name(port)).read_bytes()], _is_alive)
    return None


def write_private(path: Path, payload: bytes) -> None:
    """Replace `path` atomically, mode 0600: readers never see half of it, and other users cannot read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # left by a killed process that had our pid
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(payload)
    draft.replace(path)


def _remove_own(path: Path, state: ServeState) -> None:
    """A server on the same port of another address may have replaced the file; then it stays."""
    with suppress(OSError, ValueError):
        if decode_state(path.read_bytes()) == state:
            path.unlink()


def _is_alive(pid: int) -> bool:
    """Whether this user has a process with this ID."""
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True
