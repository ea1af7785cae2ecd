"""A file that is kept open, to be given up when the kernel has no other for a client's socket."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class SpareFile:
    """Holds the file inside its `with` block, if there is one to be had."""

    def __init__(self) -> None:
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up()

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Inside the block there is room for one file."""
        self._give_up()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with suppress(OSError):
            self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
