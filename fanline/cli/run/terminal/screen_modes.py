"""What the output of a program leaves switched on in a terminal. Pure; no I/O.

A program that fills the screen switches on what it needs, and off again when it ends; one that is killed does not. The
shell's prompt would then be on the wrong screen, without a cursor, in colour.
"""

import re

_ON_BY_DEFAULT = frozenset((b"7", b"25"))  # automatic wrapping, the cursor
_MODES = _ON_BY_DEFAULT | frozenset(
    b"1 5 6 47 66 1000 1002 1003 1004 1005 1006 1015 1016 1047 1049 2004 2026".split()
)  # keys, colours, origin, the other screen, the mouse, focus, pasting, held-back output
_LONGEST = 64  # bytes of a sequence that counts
_SEQUENCE = re.compile(
    rb"""\x1b (?: \[\? (?P<modes>[\d;]+) (?P<switch>[hl])
                | \[ (?P<colours>[\d;:]*) m
                | \[ (?P<margins>[\d;]*) r
                | \[> 4 (?:;(?P<keys>\d*))? m
                | (?P<keypad>[=>])
                | \( (?P<letters>[0AB])
                | (?P<reset>c) )""",
    re.VERBOSE,
)
_BEGUN = re.compile(rb"\x1b[\[(]?[?>]?[\d;:]*\Z")
_WHOLE_SCREEN = b"\x1b7\x1b[r\x1b8"  # setting the margins moves the cursor


class ScreenModes:
    """Feed it what is displayed, in chunks of any size."""

    def __init__(self) -> None:
        self._begun = b""  # a sequence that the next chunk goes on with
        self._switched: dict[bytes, bytes] = {}
        """Mode -> the sequence that switched it, of those that are not as in the beginning."""

    def feed(self, data: bytes) -> None:
        data = self._begun + data
        for found in _SEQUENCE.finditer(data):
            self._take(found)
        begun = _BEGUN.search(data)
        self._begun = begun[0] if begun is not None and len(begun[0]) <= _LONGEST else b""

    def _take(self, found: re.Match[bytes]) -> None:
        kind, sequence = found.lastgroup, found[0]
        if found["modes"] is not None:
            on = found["switch"] == b"h"
            for mode in _MODES.intersection(found["modes"].split(b";")):
                usual = mode in _ON_BY_DEFAULT
                self._switch(b"?" + mode, b"\x1b[?" + mode + (b"l" if usual else b"h"), on is not usual)
        elif kind == "reset":
            self._switched.clear()
        elif kind == "keypad":
            self._switch(b"keypad", sequence, found["keypad"] == b"=")
        elif kind == "letters":
            self._switch(b"letters", sequence, found["letters"] != b"B")
        elif kind == "margins":
            self._switch(b"margins", sequence, bool(found["margins"]))
        elif kind == "colours":
            self._switch(b"colours", sequence, bool(found["colours"].strip(b"0;")))
        else:
            self._switch(b"keys", sequence, found["keys"] not in (None, b"", b"0"))

    def _switch(self, mode: bytes, sequence: bytes, away: bool) -> None:
        self._switched.pop(mode, None)
        if away:
            self._switched[mode] = sequence

    @property
    def off(self) -> bytes:
        """What puts everything back; nothing if all is as in the beginning."""
        return b"".join(map(_undone, reversed(self._switched)))

    @property
    def on(self) -> bytes:
        """What brings it about again."""
        return b"".join(self._switched.values())


def _undone(mode: bytes) -> bytes:
    if mode.startswith(b"?"):
        return b"\x1b[" + mode + (b"h" if mode[1:] in _ON_BY_DEFAULT else b"l")
    return {
        b"keypad": b"\x1b>",
        b"letters": b"\x1b(B",
        b"margins": _WHOLE_SCREEN,
        b"colours": b"\x1b[0m",
        b"keys": b"\x1b[>4m",
    }[mode]
