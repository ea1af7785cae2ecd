"""A notification as plain clients know it: whole in `notification`, where some of them look for it, and in `data`."""

from typing import Any

NOTIFICATION = "notification"
"""The event."""


def notice_of(data: dict[str, Any], message_id: str, timestamp: str | None) -> dict[str, Any]:
    """Its fields. What the producer left out is filled in, so that no client finds a field missing; `type`, the level,
    is in lower case. `message_id`, `timestamp`: those of the message.
    """
    known = {"id": message_id, "title": "", "message": "", "type": "info", "auto_close": False, "timestamp": timestamp}
    notice = known | {key: value for key, value in data.items() if value is not None}
    level = notice["type"]
    return notice | {"type": level.lower() if isinstance(level, str) else level}
