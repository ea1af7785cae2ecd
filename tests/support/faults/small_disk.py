"""A disk of 64 MB that can be filled: a tmpfs of its own, for a test that may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

DISK = "64m"
_CHUNK = b"\0" * 65536


class SmallDisk:
    """`path` is its root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave not a byte free."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(_CHUNK)

    def free(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mounted on the directory `path`; the test is skipped, with the reason, where that is not permitted."""
    command = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(path))
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs the program mount")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"may not mount a tmpfs here (uid {os.getuid()}): {error.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(("umount", "--lazy", str(path)), check=True)
