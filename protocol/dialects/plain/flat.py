"""The plain dialect of routes that watch one task: its progress stands at the top level of a message."""

from collections.abc import Callable
from typing import Any, cast

import msgspec

from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.dialects.plain.events import encode_object
from fanline.protocol.dialects.plain.names import task_id_of
from fanline.protocol.dialects.plain.plain import PlainDialect
from fanline.protocol.dialects.plain.replies import status_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode
from fanline.protocol.messages.answers import error_of
from fanline.protocol.tasks.events import TaskData, TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot, snapshot_fields
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.times import iso_time

_Fields = dict[str, Any]
_COMPLETE = "complete"
_TASK = "task:"


class FlatDialect(PlainDialect):
    """For clients that show a `stage` and a `progress`, and leave out what has no stage."""

    name = "flat"

    def encode(self, envelope: Envelope) -> bytes:
        build = _FORMS.get(envelope.event or "") if _is_of_task(envelope) else None
        if build is None:
            return super().encode(envelope)
        try:
            fields = build(envelope)
        except msgspec.ValidationError:  # a client has published it, whose data may be anything
            return super().encode(envelope)
        return encode_object({**fields, "timestamp": iso_time(envelope.time)})

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        known = _known(reply) if isinstance(command, PlainCommand) and command.event == "status" else None
        if known is None or not isinstance(command, PlainCommand):
            return super().encode_reply(command, reply)
        return encode_object({**_status(command.said["task_id"], known), "timestamp": iso_time(reply.time)})

    def follow_up(self, envelope: Envelope) -> bytes | None:
        return None  # its forms say how the task is


def _is_of_task(envelope: Envelope) -> bool:
    """Whether a task says it. An event of that name on another channel is the application's own: it ends nothing."""
    return envelope.type == MessageType.PUB and (envelope.channel or "").startswith(_TASK)


def _known(reply: Envelope) -> _Fields | None:
    """What a reply to `status` says of the task. An unknown task is no error: the client waits for it."""
    if reply.type == MessageType.OK:
        return cast("_Fields", reply.value)
    is_unknown = reply.type == MessageType.ERR and error_of(reply).code == ErrorCode.UNKNOWN_TASK
    return snapshot_fields(Snapshot()) if is_unknown else None


def _status(task_id: Any, known: _Fields) -> _Fields:
    """Where the task is stands beside its status, so that who comes late shows it as if it had been there."""
    snapshot = msgspec.convert(known, Snapshot)
    status = status_of(task_id, known)
    if snapshot.state is TaskState.UNKNOWN:
        return status
    stage = _COMPLETE if snapshot.state is TaskState.COMPLETED else snapshot.stage or snapshot.state
    return {**status, "stage": stage, "progress": snapshot.percent or 0, "message": snapshot.message or ""}


class _SnapshotData(msgspec.Struct):
    snapshot: _Fields


def _snapshot(envelope: Envelope) -> _Fields:
    task = unescape_id((envelope.channel or "").partition(":")[2])
    return _status(task_id_of(task), msgspec.convert(envelope.value, _SnapshotData).snapshot)


def _progress(envelope: Envelope) -> _Fields:
    data = _data(envelope)
    percent = data.percent
    if percent is None and data.total:
        percent = 100 * (data.done or 0) / data.total
    return {"stage": data.stage or TaskState.RUNNING, "progress": percent or 0, "message": data.message or ""}


def _completed(envelope: Envelope) -> _Fields:
    result = _data(envelope).result
    shown = result if isinstance(result, dict) else {} if result is None else {"value": result}
    return {"stage": _COMPLETE, "progress": 100, "result": shown}


def _failed(envelope: Envelope) -> _Fields:
    said = _data(envelope).error or (envelope.event or "").replace("_", " ")  # as in "task cancelled"
    return {"type": "error", "message": said}


def _data(envelope: Envelope) -> TaskData:
    value = envelope.value
    return msgspec.convert({} if value is None else value, TaskData)


_FORMS: dict[str, Callable[[Envelope], _Fields]] = {
    TaskEvent.SNAPSHOT: _snapshot,
    TaskEvent.PROGRESS: _progress,
    TaskEvent.COMPLETED: _completed,
    TaskEvent.FAILED: _failed,
    TaskEvent.TIMED_OUT: _failed,
    TaskEvent.CANCELLED: _failed,
}
