"""Messages as they are, to a user, a channel, a project, a chat session, or everybody."""

from collections.abc import Mapping
from typing import Any

from fanline.compat.messages import EVERYBODY, SYSTEM, channel_of, event_of, message_of, named_channel
from fanline.compat.sent import Sent, publish_copies
from fanline.protocol.dialects.plain.notices import NOTIFICATION

_Message = Mapping[str, Any]


def send_to_user(user_id: str | int, message: _Message, exclude_connection: str | None = None) -> Sent:
    """To all connections of a user, but for the one with the public id `exclude_connection`. A user who has none gets
    it at the next one, for seven days.
    """
    envelope = message_of(message)
    envelope.excluded = exclude_connection and str(exclude_connection)  # it may be an AskingClient
    return publish_copies(envelope, [channel_of("user", user_id)])


def send_to_channel(channel: str, message: _Message, exclude_connection: str | None = None) -> Sent:
    """To all who have subscribed to a channel, such as `task:42` or `system`."""
    envelope = message_of(message)
    envelope.excluded = exclude_connection and str(exclude_connection)  # it may be an AskingClient
    return publish_copies(envelope, [named_channel(channel)])


def send_to_project(project_id: str | int, message: _Message) -> Sent:
    """To all who have subscribed to a project; the message gets its `project_id`."""
    return publish_copies(message_of(message, project_id=project_id), [channel_of("project", project_id)])


broadcast_to_project = send_to_project
"""Its name in the agent task board."""


def send_to_session(session_id: str | int, message: _Message) -> Sent:
    """To all members of a chat session."""
    return publish_copies(message_of(message, session_id=session_id), [channel_of("session", session_id)])


def broadcast(message: _Message) -> Sent:
    """To every connection, subscribed or not."""
    envelope = message_of(message)
    envelope.priority = max(EVERYBODY, envelope.priority or 0)
    return publish_copies(envelope, [SYSTEM])


def send_notification_to_user(user_id: str | int, title: str, message: str, level: str = "info") -> Sent:
    """A notification, in the forms that clients of all systems know. `level`: info, success, warning, error, urgent."""
    notice = {"title": title, "message": message, "type": level.lower()}
    return publish_copies(event_of(NOTIFICATION, notice), [channel_of("user", user_id)])
