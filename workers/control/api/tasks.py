"""The calls about tasks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import trio
from fastapi import APIRouter, Depends, Query
from pydantic import Field

from fanline.engine.bus.stored import KvEntry
from fanline.engine.cluster.shares import SHARES
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.answers import StrangersPage
from fanline.protocol.management.questions import CallQuestion, StrangersQuestion, TaskQuestion
from fanline.protocol.messages.commands import CANCEL_SECONDS
from fanline.protocol.nats.names import Bucket, channel_of_key
from fanline.protocol.tasks.states import TERMINAL, TaskState
from fanline.workers.control.api.looking import coverage
from fanline.workers.control.api.models import ApiModel, ApiPage, TaskSummary
from fanline.workers.control.api.parameters import NAME, Limit, TaskName, checked_channel
from fanline.workers.control.cluster import Gathered
from fanline.workers.control.http.callers import Caller, acting, needing
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import ControlParts, Parts

router = APIRouter(route_class=StrictRoute)
_Looking = Depends(needing(ApiRight.READ))
_SCANNED = 1000
"""Records that one call reads at most: with a filter a page may have few items, or none, and still not be the last."""
_STRANGE = TaskState.UNKNOWN
_HANDED_OVER_SECONDS = 3.0  # in which a share goes from one worker to another
_MAX_BY = 64  # characters of a name, as in a `call`
_RECORD_SECONDS = 4.0  # for what is stored before and after the producer is asked
_Caller = Annotated[Caller, Depends(acting(ApiRight.TASKS))]


@router.get("/tasks", dependencies=[_Looking])
async def tasks(
    parts: Parts,
    after: Annotated[
        str, Query(max_length=320, pattern=r"^[0-9]{0,16}(/.*)?$", description="`next` of the page before.")
    ] = "",
    limit: Limit = 100,
    state: Annotated[TaskState | None, Query(description="Only those in this state.")] = None,
    ended: Annotated[bool | None, Query(description="Only those that have ended, or only others.")] = None,
) -> ApiPage[TaskSummary]:
    """Running and ended tasks: those with a record, in the order in which the records changed, then new ones
    without a record. A page that is not the last one may have fewer items than asked for.
    """
    recorded, _, name = after.partition("/")
    wanted = partial(_matches, state=state, ended=ended)
    items, revision, more = await _recorded(parts, int(recorded or 0), limit, wanted)
    if more or ended or state in TERMINAL:
        return ApiPage(items=items, next=_position(revision, name) if more else None, total=None)
    question = StrangersQuestion(after=name, limit=limit - len(items))
    told = await _strangers(parts, question)
    unrecorded, behind = _merged(told.bodies, question.limit)
    items += filter(wanted, unrecorded)
    known, more = {each.channel for each in items}, True
    if len(items) < limit:  # what was recorded while we asked
        late, revision, more = await _recorded(parts, revision, limit - len(items), wanted)
        items += [each for each in late if each.channel not in known]
    name = behind or (unrecorded[-1].channel if unrecorded else name)
    following = _position(revision, name) if behind or more else None
    return ApiPage(items=items, next=following, total=None, workers=coverage(told))


async def _strangers(parts: ControlParts, question: StrangersQuestion) -> Gathered[StrangersPage]:
    """The unrecorded tasks that workers know. A share of the tasks that is handed over between them is waited for, but
    not for longer than that takes. ApiError, BusError.
    """
    wanted = set(range(SHARES)) if parts.namespaces.tasks() else set[int]()
    until = trio.current_time() + _HANDED_OVER_SECONDS
    while True:
        told = await parts.cluster.gather(question, StrangersPage)
        known = {share for page in told.bodies for share in page.shares}
        if wanted <= known or told.missing or trio.current_time() > until:
            return told
        await trio.sleep(_HANDED_OVER_SECONDS / 10)


def _position(revision: int, name: str) -> str:
    """Where the next page begins: behind the record with that revision, and behind that task without one."""
    return f"{revision}/{name}" if name else str(revision)


async def _recorded(
    parts: ControlParts, after: int, limit: int, wanted: Callable[[TaskSummary], bool]
) -> tuple[list[TaskSummary], int, bool]:
    """Tasks whose records are behind a revision; the revision of the last one that was read, and whether there may be
    more. BusError.
    """
    items, scanned = list[TaskSummary](), 0
    while len(items) < limit and scanned < _SCANNED:
        entries = await parts.bus.kv_page(Bucket.TASKS, after, limit)
        if not entries:
            return items, after, False
        for key, entry in entries.items():
            if len(items) >= limit:
                break
            after, scanned = entry.revision, scanned + 1
            found = _summary(key, entry)
            if found is not None and wanted(found):
                items.append(found)
    return items, after, True


def _merged(pages: Sequence[StrangersPage], limit: int) -> tuple[list[TaskSummary], str | None]:
    """The first tasks of several workers, and the channel behind which there are more. What lies behind the last one of
    a worker that has more waits for the next page.
    """
    ends = [page.items[-1][0] for page in pages if page.more]
    found = {channel: snapshot for page in pages for channel, snapshot in page.items}
    known = sorted(each for each in found.items() if not ends or each[0] <= min(ends))
    more = bool(ends) or len(known) > limit
    return [_as_summary(*each) for each in known[:limit]], known[:limit][-1][0] if more else None


@router.get("/tasks/{task_id}", dependencies=[_Looking])
async def task(parts: Parts, task_id: TaskName) -> TaskSummary:
    """The present state of a task, or the final one of a task that has ended."""
    channel = checked_channel(f"task:{task_id}", "path.task_id")
    return _as_summary(channel, await parts.cluster.ask_one(TaskQuestion(channel=channel), dict))


class Cancelling(ApiModel):
    """How to stop a task."""

    deadline: Annotated[float, Field(gt=0, le=86_400)] = CANCEL_SECONDS
    """Seconds until the end is forced."""
    force: bool = False
    """End the task even if no producer is attached."""


class Answering(ApiModel):
    """The answer to a question of a task."""

    ask: Annotated[str, Field(max_length=256, pattern=NAME)] | None = None
    """The question's id; null: the newest one."""
    value: Any = None
    """What is answered; of `approve` and `reject` null means true and false."""


class TaskAnswer(ApiModel):
    """The producer's reply, or that it could not be reached yet."""

    task_id: str
    verb: str
    answer: Any


@router.post("/tasks/{task_id}/cancel")
async def cancel_task(parts: Parts, caller: _Caller, task_id: TaskName, wanted: Cancelling | None = None) -> TaskAnswer:
    """Ask a task to stop, as a viewer's `cancel` does."""
    how = wanted or Cancelling()
    return await _call(parts, caller, task_id, "cancel", {"deadline": how.deadline, "force": how.force})


@router.post("/tasks/{task_id}/input")
async def input_of_task(parts: Parts, caller: _Caller, task_id: TaskName, wanted: Answering) -> TaskAnswer:
    """Give a task a value, as an answer to its question or unasked."""
    return await _call(parts, caller, task_id, "input", {"ask": wanted.ask, "value": wanted.value})


@router.post("/tasks/{task_id}/approve")
async def approve_task(parts: Parts, caller: _Caller, task_id: TaskName, wanted: Answering | None = None) -> TaskAnswer:
    """Approve what a task asks."""
    return await _call(parts, caller, task_id, "approve", _said(wanted))


@router.post("/tasks/{task_id}/reject")
async def reject_task(parts: Parts, caller: _Caller, task_id: TaskName, wanted: Answering | None = None) -> TaskAnswer:
    """Reject what a task asks."""
    return await _call(parts, caller, task_id, "reject", _said(wanted))


def _said(wanted: Answering | None) -> dict[str, Any]:
    said = {} if wanted is None else {"ask": wanted.ask, "value": wanted.value}
    return {name: value for name, value in said.items() if value is not None}


async def _call(parts: ControlParts, caller: Caller, task_id: str, verb: str, data: dict[str, Any]) -> TaskAnswer:
    channel = checked_channel(f"task:{task_id}", "path.task_id")
    question = CallQuestion(channel=channel, verb=verb, data=data, by=caller.name[:_MAX_BY])
    answer = await parts.cluster.act_once(question, parts.settings.engine.call_timeout + _RECORD_SECONDS)
    return TaskAnswer(task_id=task_id, verb=verb, answer=answer)


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
