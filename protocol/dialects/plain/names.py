"""The names by which plain clients know channels, tasks and offsets. Pure.

Ids come as they were in the systems of these clients, so those that the grammar of channels does not allow are escaped.
"""

from fanline.protocol.compat.escapes import escape_id, unescape_id

SYSTEM = "system:all"
_SYSTEM_ALIAS = "system"
_MAX_DIGITS = 19  # of any 64-bit integer; int() refuses texts with thousands


def channel_named(name: str, rooms: str) -> str:
    """The channel that these clients know by a name; one without a namespace is of the namespace `rooms`."""
    if name == _SYSTEM_ALIAS:
        return SYSTEM
    namespace, colon, local = name.partition(":")
    return channel_of_id(namespace, local) if colon else channel_of_id(rooms, name)


def channel_of_id(namespace: str, local: str) -> str:
    """The channel of an id; a lone star is not an id, but stands for all channels."""
    return f"{namespace}:{local if local == '*' else escape_id(local)}"


def name_of(channel: str | None) -> str | None:
    """The name by which these clients know a channel."""
    if channel is None or channel == SYSTEM:
        return channel and _SYSTEM_ALIAS
    namespace, _, local = channel.partition(":")
    return f"{namespace}:{unescape_id(local)}"


def is_offset(text: str) -> bool:
    """Whether a part of a name or of a page's mark is an offset."""
    return text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS


def task_id_of(text: str) -> int | str:
    """The id of a task in a path: a number if it may have been one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else text
