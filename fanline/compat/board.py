"""The task board: what is said of its items goes to the item's assignee and its project, each viewer once.

Items are no tasks of the engine: they have states of their own, and no channel.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from fanline.compat.messages import channel_of, event_of
from fanline.compat.sent import Sent, publish_copies
from fanline.errors import NotPublished
from fanline.publishing.receipt import Receipt

MAX_ITEMS = 10_000
"""Of which a process remembers where they belong, those that it has spoken of last."""


class _Place(NamedTuple):
    """Where an item belongs."""

    assignee: str | None = None
    project: str | None = None


_places: dict[str, _Place] = {}  # item -> its place, those that were spoken of last at the end


def broadcast_task_update(data: Mapping[str, Any], event: str = "task_updated") -> Sent:
    """Tell an item's assignee and its project what has happened to it. `data` names them (`assignee_id` or `user_id`,
    `project_id`), or this process has told of the item before (`task_id`), and remembers.
    """
    item = _text(data.get("task_id") or data.get("id"))
    before = _places.pop(item or "", _Place())
    place = _Place(
        assignee=_text(data.get("assignee_id")) or _text(data.get("user_id")) or before.assignee,
        project=_text(data.get("project_id")) or before.project,
    )
    if item is not None and event != "task_deleted":
        _places[item] = place
        if len(_places) > MAX_ITEMS:
            del _places[next(iter(_places))]
    channels = [channel_of("user", place.assignee)] if place.assignee else []
    if place.project:
        channels.append(channel_of("project", place.project))
    if not channels:
        return _nowhere(item)
    return publish_copies(event_of(event, data, task_id=data.get("task_id"), project_id=place.project), channels)


def _nowhere(item: str | None) -> Sent:
    failed: Future[None] = Future()
    why = "its data name neither assignee_id nor project_id, and this process has not told of it before"
    failed.set_exception(NotPublished(f"nobody is told of the item {item}: {why}"))
    return Sent([Receipt("", "", failed)])


def _text(value: Any) -> str | None:
    is_id = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) or None if is_id else None
