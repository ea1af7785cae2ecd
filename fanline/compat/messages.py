"""Messages of the old systems as envelopes, and their names for channels. Pure."""

from collections.abc import Mapping
from typing import Any

from fanline.base.plain import plain
from fanline.errors import NotPublished
from fanline.protocol.compat.escapes import escape_id
from fanline.protocol.envelope import Envelope

SYSTEM = "system:all"
EVERYBODY = 8
"""Priority from which on a message on SYSTEM reaches every connection."""
_MAX_PRIORITY = 9
_SERVERS = ("channel", "timestamp")
"""Keys of a message that the server fills in itself."""


def channel_of(namespace: str, name: object) -> str:
    """The channel of a user or a thing: `user:anna` of `user` and `anna`. Raises NotPublished without a name."""
    text = "" if name is None else str(name)
    if not text:
        raise NotPublished(f"no {namespace} is named: which one is it for?")
    return f"{namespace}:{escape_id(text)}"


def named_channel(name: str) -> str:
    """A channel by its name in the old systems: `system` stands for `system:all`."""
    namespace, colon, local = name.partition(":")
    if name == "system":
        return SYSTEM
    return f"{namespace}:{escape_id(local)}" if colon and local else name


def event_of(event: str, data: Any, **extra: Any) -> Envelope:
    """An event with its data. `extra`: what stands at the top level, where it is not None."""
    return Envelope(event=event, data=plain_data(data), extra=_known(extra))


def message_of(message: Mapping[str, Any], **extra: Any) -> Envelope:
    """A message that is sent as it is: its `type`, its `data` if it has some, and its other keys at the top level."""
    fields = {key: value for key, value in message.items() if key not in _SERVERS}
    event, data, message_id = fields.pop("type", None), fields.pop("data", None), fields.pop("message_id", None)
    priority, ttl = fields.pop("priority", None), fields.pop("ttl", None)
    return Envelope(
        event=None if event is None else str(event),
        data=plain_data(data),
        id=None if message_id is None else str(message_id),
        priority=None if priority is None else bounded_priority(priority),
        ttl=ttl if isinstance(ttl, int) and ttl > 0 else None,
        extra=_known(fields | extra),
    )


def bounded_priority(priority: Any) -> int:
    """A priority of the old systems, where 10 was the highest."""
    try:
        return max(0, min(_MAX_PRIORITY, int(priority)))
    except (TypeError, ValueError):
        raise NotPublished(f"priority: expected a number, not {priority!r}") from None


def plain_data(data: Any) -> Any:
    """As JSON can hold it. Raises NotPublished."""
    try:
        return plain(data)
    except (TypeError, ValueError) as error:
        raise NotPublished(f"data: {error}") from None


def _known(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    return {key: plain_data(value) for key, value in extra.items() if value is not None} or None
