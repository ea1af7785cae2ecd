"""Names of our processes in ps, top and pgrep: `fanline: worker 0` in place of an interpreter and its arguments."""

import ctypes
from contextlib import suppress
from pathlib import Path

_PR_SET_NAME = 15
_ARGUMENTS = slice(45, 47)
"""Where the arguments begin and end in memory: fields 48 and 49 of /proc/PID/stat, counted after the name."""
_MAX_SHORT = 15  # characters of the name that top shows


def name_process(role: str, rest: str) -> None:
    """Call this process `fanline: ROLE REST`, as far as its arguments had room for that, and `fanline ROLE` for short.

    The kernel shows the memory in which a program found its arguments. Python has copied them long before.
    """
    with suppress(OSError, ValueError):  # no /proc: the name is a convenience
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begin, end = map(int, fields[_ARGUMENTS])
        room = end - begin
        if room > 1:
            title = f"fanline: {role} {rest}".strip().encode("utf-8", "replace")
            ctypes.memmove(begin, title[: room - 1].ljust(room, b"\0"), room)
    short = f"fanline {role.replace(' ', '')}"[:_MAX_SHORT]
    ctypes.CDLL(None).prctl(_PR_SET_NAME, short.encode())
