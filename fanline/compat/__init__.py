"""One import for the programs of the systems that Fanline replaces: their calls, under their names.

    from fanline.compat import broadcast_task_update, emit_task_event, send_to_user

    await emit_task_event("task_progress_update", "42", {"progress": 50}, user_id="anna", project_id="7")

Each call works under asyncio and Trio, and in plain functions: see `Sent`. What it needs to know is where NATS is, as
`fanline.publish` does. docs/how-to/move-from-an-existing-system.md has them all.
"""

from fanline.compat.board import broadcast_task_update
from fanline.compat.emitting import emit_project_event, emit_system_event, emit_task_event, emit_user_event
from fanline.compat.sending import (
    broadcast,
    broadcast_to_project,
    send_notification_to_user,
    send_to_channel,
    send_to_project,
    send_to_session,
    send_to_user,
)
from fanline.compat.sent import Sent
from fanline.compat.server import RunningServer, initialize_websocket_system, start_websocket_server

__all__ = [
    "RunningServer",
    "Sent",
    "broadcast",
    "broadcast_task_update",
    "broadcast_to_project",
    "emit_project_event",
    "emit_system_event",
    "emit_task_event",
    "emit_user_event",
    "initialize_websocket_system",
    "send_notification_to_user",
    "send_to_channel",
    "send_to_project",
    "send_to_session",
    "send_to_user",
    "start_websocket_server",
]
