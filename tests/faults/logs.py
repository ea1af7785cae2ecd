"""What the processes of a server have logged, in few words. Pure."""

import re
from collections import Counter

_SERVER = re.compile(r"^\d{4}-\d\d-\d\d \S+ (?P<level>WARNING|ERROR|CRITICAL) (?P<text>.*)$", re.MULTILINE)
_NATS = re.compile(r"^\[\d+\] \S+ \S+ \[(?P<level>WRN|ERR|FTL)\] (?P<text>.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_MOST, _WIDTH = 5, 90


def summary(server: str, nats: str) -> str:
    """The warnings and errors, each kind once with its number, the most frequent first."""
    counts = Counter(_kind(match["text"]) for match in _SERVER.finditer(server))
    counts += Counter(f"nats-server: {_kind(match['text'])}" for match in _NATS.finditer(nats))
    told = [f"{count} x {kind}" for kind, count in counts.most_common(_MOST)]
    rest = counts.total() - sum(count for _, count in counts.most_common(_MOST))
    return "; ".join([*told, *([f"{rest} more"] if rest else [])]) or "nothing"


def tracebacks(server: str) -> list[str]:
    """The last line of each traceback: none is expected, whatever the fault."""
    found = re.findall(r"^Traceback .*?$\n(?:[ \t|].*\n|\n)*(\S.*)$", server, re.MULTILINE)
    return [f"a traceback in the log: {line[:_WIDTH]}" for line in found]


def _kind(text: str) -> str:
    kind = _NUMBER.sub("N", text)
    return kind if len(kind) <= _WIDTH else f"{kind[: _WIDTH - 3]}..."
