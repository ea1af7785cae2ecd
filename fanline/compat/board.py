"""The task board: the server gets an item, sends it to its assignee and its project, and lists it to clients.

Items are not tasks of the engine: they have states of their own, and no channel.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from fanline.compat.messages import plain_data
from fanline.compat.sent import Sent
from fanline.protocol.compat.board import BoardUpdate
from fanline.publishing.publish import publish_update


def broadcast_task_update(data: Mapping[str, Any], event: str = "task_updated") -> Sent:
    """Tell an item's assignee and its project what has happened to it, each viewer once; `get_tasks` of clients lists
    it. `data` is the item, or what has changed of it: the server knows to whom an item (`task_id`) belongs that was
    spoken of before, by whichever program or client; otherwise `data` names them (`assignee_id` or `user_id`,
    `project_id`).
    """
    return Sent([publish_update(BoardUpdate(event, plain_data(data), secrets.token_urlsafe(12)))])
