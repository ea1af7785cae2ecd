"""What a handle says to the process that runs the task, and hears from it: lines of JSON. Pure."""

from typing import Any

import msgspec

from fanline.producer.run.buffer import MAX_BYTES
from fanline.producer.values.json_value import json_value

VERBS = ("progress", "log", "pause", "resume", "set_result")
"""The methods of a producer that a handle has."""


def report_line(verb: str, arguments: tuple[object, ...]) -> tuple[bytes, str | None]:
    """A call of one of these methods, with arguments of any kind; and what is missing of them."""
    raw, loss = json_value([verb, *arguments], MAX_BYTES)
    return bytes(raw) + b"\n", loss


def cancel_line(by: str | None) -> bytes:
    return msgspec.json.encode({"by": by}) + b"\n"


def read_cancel(line: bytes) -> str | None:
    """The user who cancels the task, if known."""
    try:
        by = msgspec.json.decode(line, type=dict[str, Any]).get("by")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return by if isinstance(by, str) else None


def read_report(line: bytes) -> tuple[str, list[Any]] | None:
    """The method and its arguments; None for anything else."""
    try:
        verb, *arguments = msgspec.json.decode(line, type=list[Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (verb, arguments) if verb in VERBS else None
