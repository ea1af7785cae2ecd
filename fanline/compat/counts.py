"""How many there are, as the management API says: of the server on this machine, or of $FANLINE_URL.

These calls wait for an answer, some milliseconds as a rule, and never longer than SECONDS.
"""

from typing import Any
from urllib.parse import quote

from fanline.compat.messages import named_channel
from fanline.management import ManagementClient

SECONDS = 3.0


def get_websocket_stats() -> dict[str, Any]:
    """The whole cluster in numbers: `active_connections`, `messages_sent`, and all others of `GET /stats`. Raises
    FanlineError if there is no server, or no answer.
    """
    stats: dict[str, Any] = _client().get("/stats")
    return stats


def get_connection_count() -> int:
    """Connections of the whole cluster. FanlineError."""
    return int(get_websocket_stats()["active_connections"])


def get_user_connection_count(user_id: str | int) -> int:
    """Those of one user. FanlineError."""
    return int(_client().get("/connections", user=str(user_id), limit=1)["total"])


def get_channel_subscriber_count(channel: str) -> int:
    """Connections that have subscribed to a channel, such as `task:42` or `system`. FanlineError."""
    return int(_client().get(f"/channels/{quote(named_channel(channel), safe='')}")["subscribers"])


def _client() -> ManagementClient:
    return ManagementClient(seconds=SECONDS)
