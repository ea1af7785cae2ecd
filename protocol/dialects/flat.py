"""The plain dialect of routes that watch one task: its progress stands at the top level of a message."""

from collections.abc import Callable
from typing import Any

from fanline.protocol.dialects.plain import PlainDialect, encode_object, iso_time, status_of
from fanline.protocol.dialects.plain_commands import task_id_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.escapes import unescape_id
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState

_Fields = dict[str, Any]


class FlatDialect(PlainDialect):
    """For clients that show a `stage` and a `progress`, and leave out what has no stage."""

    name = "flat"

    def encode(self, envelope: Envelope) -> bytes:
        build = _FORMS.get(envelope.event or "") if envelope.type == MessageType.PUB else None
        value = envelope.value if build is not None else None
        if build is None or not isinstance(value, dict | None):
            return super().encode(envelope)
        return encode_object({**build(envelope, value or {}), "timestamp": iso_time(envelope.time)})


def _snapshot(envelope: Envelope, value: _Fields) -> _Fields:
    task = unescape_id((envelope.channel or "").partition(":")[2])
    return status_of(task_id_of(task), value["snapshot"])


def _progress(envelope: Envelope, value: _Fields) -> _Fields:
    stage = value.get("stage") or TaskState.RUNNING
    return {"stage": stage, "progress": _percent(value), "message": value.get("message") or ""}


def _percent(value: _Fields) -> Any:
    if value.get("percent") is None and value.get("total"):
        return 100 * (value.get("done") or 0) / value["total"]
    return value.get("percent") or 0


def _completed(envelope: Envelope, value: _Fields) -> _Fields:
    result = value.get("result")
    shown = result if isinstance(result, dict) else {} if result is None else {"value": result}
    return {"stage": "complete", "progress": 100, "result": shown}


def _failed(envelope: Envelope, value: _Fields) -> _Fields:
    said = value.get("error") or (envelope.event or "").replace("_", " ")  # as in "task cancelled"
    return {"type": "error", "message": said}


_FORMS: dict[str, Callable[[Envelope, _Fields], _Fields]] = {
    TaskEvent.SNAPSHOT: _snapshot,
    TaskEvent.PROGRESS: _progress,
    TaskEvent.COMPLETED: _completed,
    TaskEvent.FAILED: _failed,
    TaskEvent.TIMED_OUT: _failed,
    TaskEvent.CANCELLED: _failed,
}
