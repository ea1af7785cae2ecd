"""The limit of open files, which limits connections: each connection is an open file of its worker."""

import resource
from contextlib import suppress


def raise_file_limit() -> None:
    """Raise the soft limit to the hard one, for this process and those that it starts.

    The soft limit is low (often 1,024) for the sake of programs that use select(); we do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # above what the kernel allows a process: the soft limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
