"""The event emitters of the agent console."""

from typing import Any

from fanline.compat.messages import SYSTEM, bounded_priority, channel_of, event_of
from fanline.compat.sent import Sent, publish_copies


def emit_task_event(
    type: str,  # noqa: A002  # its name in programs
    task_id: str | int,
    data: Any = None,
    user_id: str | int | None = None,
    project_id: str | int | None = None,
) -> Sent:
    """An event of a task: to `task:<task_id>`, to its user and to its project, if they are named; each viewer of
    several of them gets it once.
    """
    channels = [channel_of("task", task_id)]
    if user_id is not None:
        channels.append(channel_of("user", user_id))
    if project_id is not None:
        channels.append(channel_of("project", project_id))
    return publish_copies(event_of(type, data, task_id=task_id, user_id=user_id, project_id=project_id), channels)


def emit_project_event(
    type: str,  # noqa: A002
    project_id: str | int,
    data: Any = None,
    user_id: str | int | None = None,
) -> Sent:
    """An event of a project: to `project:<project_id>`. `user_id`: who it is about, as viewers see it."""
    envelope = event_of(type, data, user_id=user_id, project_id=project_id)
    return publish_copies(envelope, [channel_of("project", project_id)])


def emit_system_event(type: str, data: Any = None, priority: int = 5) -> Sent:  # noqa: A002
    """An event of the system: to `system`. With a priority of 8 or more it reaches every connection."""
    envelope = event_of(type, data)
    envelope.priority = bounded_priority(priority)
    return publish_copies(envelope, [SYSTEM])


def emit_user_event(type: str, user_id: str | int, data: Any = None) -> Sent:  # noqa: A002
    """An event for one user, on all of the user's connections, or at the next one."""
    return publish_copies(event_of(type, data, user_id=user_id), [channel_of("user", user_id)])
