"""What the events of a task say: the `d` of each, checked. Pure; no I/O.

A producer may put any other key beside the known ones; it is passed on untouched.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError

MAX_LINE = 8192
"""Characters of one output line that are kept in a log tail; a producer of ours cuts there, too."""
MAX_TEXT = 16_384
"""Characters of a message, a question or an error."""
MAX_OPTIONS = 64
"""Answers that a question may offer."""
MAX_RESULT_BYTES = 128 * 1024
"""Of a result or an answer's value as JSON. A larger one is told to viewers, and not kept in the snapshot."""

_Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
_Amount = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0, le=1e300)]  # a whole number stays one
_Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
_Name = Annotated[str, Meta(max_length=256)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class TaskEvent(StrEnum):
    """Every `e` that means something to the engine on a task channel; any other event passes through."""

    CREATED = "task_created"  # known, and waiting for a producer: title, kind
    STARTED = "task_started"  # attempt, title, heartbeat, timeout
    PROGRESS = "task_progress"  # percent, or done and total; stage, message
    OUTPUT = "task_output"  # lines, stream
    PAUSED = "task_paused"
    RESUMED = "task_resumed"
    ASKED = "task_confirmation_required"  # ask, text, kind, options, deadline
    ANSWERED = "task_input"  # ask, by, value; without ask: input that nobody had asked for
    ASK_EXPIRED = "task_confirmation_expired"  # ask; by the engine
    CANCEL_REQUESTED = "task_cancel_requested"  # by, deadline; by the engine
    CANCEL_ACCEPTED = "task_cancel_accepted"  # by the engine, when the producer has said so
    CANCEL_REFUSED = "task_cancel_refused"  # message; by the engine, when the producer has said so
    STALLED = "task_stalled"  # by the engine: the producer is silent for longer than its heartbeat
    HEARD = "task_heard"  # by the engine: it speaks again
    COMPLETED = "task_completed"  # result
    FAILED = "task_failed"  # error
    CANCELLED = "task_cancelled"  # by, forced
    TIMED_OUT = "task_timeout"  # error

    SNAPSHOT = "task_snapshot"  # never published: what a viewer who joins gets first


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class AskKind(StrEnum):
    APPROVE = "approve"  # answered by `approve` or `reject`
    INPUT = "input"  # answered by `input` with a value


class TaskData(msgspec.Struct):
    """The known keys of all events. What an event does not say is None. Times in Unix ms, spans in seconds."""

    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Of what run this speaks; None: of the current one, or the next if this begins a run after the end. A higher one
    than the current begins a new run."""
    title: _Name | None = None
    kind: _Name | None = None
    stage: _Name | None = None
    message: _Text | None = None
    percent: _Percent | None = None
    done: _Amount | None = None
    total: _Amount | None = None
    rate: float | None = None
    """Of progress, units a second (percent if there is no `done`): set by the engine, whatever a producer says."""
    eta: float | None = None
    """Seconds to the end, as shown: set by the engine, whatever a producer says."""
    lines: list[str] | None = None
    stream: Stream | None = None
    first: Annotated[int, Meta(ge=0)] | None = None
    """Number of the first of `lines` in this attempt's output, from 0: set by the engine."""
    heartbeat: _Seconds | None = None
    """The producer promises to speak at least this often."""
    timeout: _Seconds | None = None
    """After so long from the start the engine ends the attempt as timed out."""
    deadline: _Seconds | None = None
    """Of a question: how long it may be answered. Of a cancel request: how long until the end is forced."""
    ask: _Name | None = None
    """Id of a question, unique in the task."""
    text: _Text | None = None
    options: Annotated[list[_Name], Meta(max_length=MAX_OPTIONS)] | None = None
    by: _Name | None = None
    value: Any = None
    call: _Name | None = None
    """Of an answer or a request by the engine: unique, so that the one that won can be told."""
    result: Any = None
    error: _Text | None = None
    forced: bool = False
    dropped: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    """How many output lines the producer had to leave out before this event."""


def event_of(envelope: Envelope) -> TaskEvent | None:
    """The task event an envelope of a task channel is; None for a message that only passes through."""
    return _EVENTS.get(envelope.event or "")


def data_of(envelope: Envelope, event: TaskEvent) -> TaskData:
    """The checked data of a task event. Raises MessageError(BAD_MESSAGE) naming the key at fault."""
    raw = envelope.data
    try:
        if _says_nothing(raw):
            data = TaskData()
        elif isinstance(raw, Raw):
            data = msgspec.json.decode(raw, type=TaskData)
        else:
            data = msgspec.convert(raw, TaskData)
    except msgspec.MsgspecError as error:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{event}: {error}") from None
    if data.ask is None and event in _NEED_ASK:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{event}: `ask` is missing")
    return data


def with_data(envelope: Envelope, changes: Mapping[str, Any]) -> Any:
    """The envelope's data with keys replaced, in the form the data has: JSON bytes stay JSON bytes."""
    raw = envelope.data
    if _says_nothing(raw):
        return Raw(msgspec.json.encode(changes))
    if isinstance(raw, Raw):
        return Raw(msgspec.json.encode({**msgspec.json.decode(raw), **changes}))
    return {**raw, **msgspec.to_builtins(changes)}


def _says_nothing(raw: Any) -> bool:
    """An absent key and a null are the same."""
    return raw is None or (isinstance(raw, Raw) and bytes(raw) == b"null")


_EVENTS: dict[str, TaskEvent] = {event.value: event for event in TaskEvent if event is not TaskEvent.SNAPSHOT}
_NEED_ASK = frozenset((TaskEvent.ASKED, TaskEvent.ASK_EXPIRED))
