"""Sockets with a path. The kernel takes paths of up to 107 bytes only, and directories may be deeper than that."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_BYTES = 107


@contextmanager
def socket_address(path: str) -> Iterator[str]:
    """Inside the block, a name of the path that is short enough. OSError."""
    if len(os.fsencode(path)) <= _MAX_BYTES:
        yield path
        return
    directory, name = os.path.split(path)  # a text, as the kernel wants it
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
