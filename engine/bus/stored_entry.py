"""Reading what a worker has stored as JSON in a bucket: another version may have written it, or another program."""

import logging
from typing import TypeVar

import msgspec

_log = logging.getLogger("fanline.store")

T = TypeVar("T")


def read_entry(kind: type[T], value: bytes, what: str) -> T | None:
    """The value as `kind`; None, logged as `what`, if it cannot be read."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("%s cannot be read: %s", what, str(error)[:200])
        return None
