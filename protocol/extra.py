"""Extra attributes: the `x` of an envelope, a small map of values that belong to a message besides its data. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from fanline.protocol.errors import ErrorCode, MessageError

MAX_KEYS = 32
MAX_BYTES = 4096
"""Of the map as JSON."""
VIA = "via"
"""The channels on which earlier copies of the message were published (copies.py)."""
RESERVED = ("user_id", "username", VIA)
"""Keys that a client may not set on its own messages."""

_KEY = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_encode = msgspec.json.Encoder().encode


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuse a map that is too large, or has keys that are not lower-case words. Raises MessageError(BAD_MESSAGE)."""
    if len(extra) > MAX_KEYS:
        raise _bad(f"{len(extra)} keys, at most {MAX_KEYS}")
    for key in extra:
        if _KEY.fullmatch(key) is None:
            raise _bad(f"{key[:64]!a} is no key; a key is like task_id: up to 64 of a-z, 0-9 and _, no digit first")
    size = len(_encode(extra))
    if size > MAX_BYTES:
        raise _bad(f"{size} bytes as JSON, at most {MAX_BYTES}")
    via = extra.get(VIA, [])
    if not isinstance(via, list) or not all(isinstance(channel, str) for channel in via):
        raise _bad(f"`{VIA}` is a list of channels")


def check_extra_of_client(extra: Mapping[str, Any]) -> None:
    """Refuse what only the server and the backend may say. Raises MessageError(PERMISSION_DENIED)."""
    for key in RESERVED:
        if key in extra:
            raise MessageError(ErrorCode.PERMISSION_DENIED, f"x: a client may not set `{key}`")


def _bad(text: str) -> MessageError:
    return MessageError(ErrorCode.BAD_MESSAGE, f"x: {text}")
