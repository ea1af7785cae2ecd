"""The calls about tasks."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query

from fanline.engine.bus.interface import KvEntry
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.questions import TaskQuestion
from fanline.protocol.nats.names import Bucket, channel_of_key
from fanline.protocol.tasks.states import TERMINAL, TaskState
from fanline.workers.control.api.models import ApiPage, TaskSummary
from fanline.workers.control.api.parameters import Limit, TaskName, checked_channel
from fanline.workers.control.callers import needing
from fanline.workers.control.parts import Parts

router = APIRouter()
_Looking = Depends(needing(ApiRight.READ))
_SCANNED = 1000
"""Records that one call reads at most: with a filter a page may have few items, or none, and still not be the last."""
_STRANGE = TaskState.UNKNOWN


@router.get("/tasks", dependencies=[_Looking])
async def tasks(
    parts: Parts,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before.")] = 0,
    limit: Limit = 100,
    state: Annotated[TaskState | None, Query(description="Only those in this state.")] = None,
    ended: Annotated[bool | None, Query(description="Only those that have ended, or only others.")] = None,
) -> ApiPage[TaskSummary]:
    """The tasks of which there are records, running and ended ones, in the order in which the records changed. A page
    that is not the last one may have fewer items than asked for.
    """
    items, scanned, more = list[TaskSummary](), 0, True
    while more and len(items) < limit and scanned < _SCANNED:
        entries = await parts.bus.kv_page(Bucket.TASKS, after, limit)
        more = bool(entries)
        for key, entry in entries.items():
            if len(items) >= limit:
                break
            after, scanned = entry.revision, scanned + 1
            found = _summary(key, entry)
            if found is not None and _matches(found, state, ended):
                items.append(found)
    return ApiPage(items=items, next=str(after) if more else None, total=None)


@router.get("/tasks/{task_id}", dependencies=[_Looking])
async def task(parts: Parts, task_id: TaskName) -> TaskSummary:
    """What is known of a task now, or of one that has ended."""
    channel = checked_channel(f"task:{task_id}", "path.task_id")
    return _as_summary(channel, await parts.cluster.ask_one(TaskQuestion(channel=channel), dict))


def _summary(key: str, entry: KvEntry) -> TaskSummary | None:
    """None for what is no record, or one that cannot be read."""
    if not entry.value or "." not in key:
        return None
    try:
        return _as_summary(channel_of_key(key), msgspec.json.decode(entry.value)["snapshot"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        return None


def _as_summary(channel: str, snapshot: dict[str, Any]) -> TaskSummary:
    task_id = channel.partition(":")[2]
    return TaskSummary(task_id=task_id, channel=channel, state=snapshot.get("state", _STRANGE), snapshot=snapshot)


def _matches(found: TaskSummary, state: TaskState | None, ended: bool | None) -> bool:
    return state in (None, found.state) and ended in (None, found.state in TERMINAL)
