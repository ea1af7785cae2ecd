"""One import for the programs of the systems that Fanline replaces: their calls, under their names.

    from fanline.compat import broadcast_task_update, emit_task_event, send_to_user

    await emit_task_event("task_progress_update", "42", {"progress": 50}, user_id="anna", project_id="7")

Each call works under asyncio and Trio, and in plain functions: see `Sent`. What it needs to know is where NATS is, as
`fanline.publish` does. docs/how-to/move-from-an-existing-system.md has them all.
"""

from fanline.compat.answering.manager import WebSocketManager, websocket_manager
from fanline.compat.board import broadcast_task_update
from fanline.compat.counts import (
    get_channel_subscriber_count,
    get_connection_count,
    get_user_connection_count,
    get_websocket_stats,
)
from fanline.compat.emitting import emit_project_event, emit_system_event, emit_task_event, emit_user_event
from fanline.compat.notifying import (
    send_cost_warning_notification,
    send_device_status_notification,
    send_notification,
    send_urgent_notification,
)
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
from fanline.compat.server import RunningServer, ServerNotStarted, initialize_websocket_system, start_websocket_server

add_event_handler = websocket_manager.add_event_handler
register_message_handler = websocket_manager.register_message_handler

__all__ = [
    "RunningServer",
    "Sent",
    "ServerNotStarted",
    "WebSocketManager",
    "add_event_handler",
    "broadcast",
    "broadcast_task_update",
    "broadcast_to_project",
    "emit_project_event",
    "emit_system_event",
    "emit_task_event",
    "emit_user_event",
    "get_channel_subscriber_count",
    "get_connection_count",
    "get_user_connection_count",
    "get_websocket_stats",
    "initialize_websocket_system",
    "register_message_handler",
    "send_cost_warning_notification",
    "send_device_status_notification",
    "send_notification",
    "send_notification_to_user",
    "send_to_channel",
    "send_to_project",
    "send_to_session",
    "send_to_user",
    "send_urgent_notification",
    "start_websocket_server",
    "websocket_manager",
]
