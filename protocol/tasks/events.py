"""The events of a task, and their data (`d`), checked. Pure; no I/O.

Producers may add other keys to the data; these are passed on unchanged.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.serials import SerialNumber
from fanline.protocol.text import NAME_PATTERN, explain

MAX_LINE = 8192
"""Characters of an output line that a log tail keeps; our own producers cut lines there, too."""
MAX_TEXT = 16_384
"""Characters of a message, a question or an error."""
MAX_OPTIONS = 64
"""How many answers a question may offer."""
MAX_FIELDS_BYTES = 4096
"""Size as JSON of a task's own fields. Viewers get larger ones, but the snapshot does not keep them."""
MAX_RESULT_BYTES = 128 * 1024
"""Size as JSON of a result or an answer's value. Viewers get a larger one, but the snapshot does not keep it."""

_Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
_Amount = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0, le=1e300)]  # a whole number stays one
_Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
_Title = Annotated[str, Meta(max_length=256)]
_Name = Annotated[str, Meta(max_length=256, pattern=NAME_PATTERN)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class TaskEvent(StrEnum):
    """Every `e` that means something to the engine on a task channel; all other events pass through."""

    CREATED = "task_created"  # it exists and waits for a producer: title, kind, fields
    STARTED = "task_started"  # attempt, title, fields, heartbeat, timeout
    PROGRESS = "task_progress"  # percent, or done and total; stage, message
    OUTPUT = "task_output"  # lines, stream
    PAUSED = "task_paused"
    RESUMED = "task_resumed"
    ASKED = "task_confirmation_required"  # ask, text, kind, options, deadline
    ANSWERED = "task_input"  # ask, by, verb, value; without `ask`: input that the producer had not asked for
    DELIVERED = "task_input_delivered"  # ask, again, message; from the engine: the producer has replied to the answer
    ASK_EXPIRED = "task_confirmation_expired"  # ask; from the engine
    CANCEL_REQUESTED = "task_cancel_requested"  # by, deadline; from the engine
    CANCEL_ACCEPTED = "task_cancel_accepted"  # from the engine, once the producer has agreed
    CANCEL_REFUSED = "task_cancel_refused"  # message; from the engine, once the producer has refused
    STALLED = "task_stalled"  # from the engine: the producer has been silent for longer than its heartbeat
    HEARD = "task_heard"  # from the engine: the producer speaks again
    RETRYING = "task_retrying"  # error, delay: the attempt has failed, and another will follow
    COMPLETED = "task_completed"  # result
    FAILED = "task_failed"  # error
    CANCELLED = "task_cancelled"  # by, forced
    TIMED_OUT = "task_timeout"  # error

    SNAPSHOT = "task_snapshot"  # never published: the first message that a joining viewer gets


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class AskKind(StrEnum):
    APPROVE = "approve"  # answered by `approve` or `reject`
    INPUT = "input"  # answered by `input` with a value


class TaskData(msgspec.Struct, gc=False):
    """The known keys of all events; None for a key that the event does not have. Times in Unix ms, spans in seconds."""

    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """The run that the event is about. None: the current run, or the next one if the event begins a run after the end.
    A number above the current one begins a new run.
    """
    serial: SerialNumber | None = None
    """Which event of which producer this is, so that it counts once however often it is stored
    (fanline/protocol/tasks/serials.py). None: it counts whenever it is stored.
    """
    title: _Title | None = None
    kind: _Name | None = None
    fields: Any = None
    """What the application says of the task, if it is a map: `contract_type`, `role`, ..."""
    stage: _Title | None = None
    message: _Text | None = None
    percent: _Percent | None = None
    progress: Any = None
    """What older producers say for `percent` (leniency.py)."""
    done: _Amount | None = None
    total: _Amount | None = None
    rate: float | None = None
    """Of progress, units a second (percent without `done`). Set by the engine, whatever the producer says."""
    eta: float | None = None
    """Seconds to the end, as shown. Set by the engine, whatever the producer says."""
    lines: list[str] | None = None
    stream: Stream | None = None
    first: Annotated[int, Meta(ge=0)] | None = None
    """Number of the first of `lines` in this attempt's output, from 0. Set by the engine."""
    heartbeat: _Seconds | None = None
    """The producer promises a sign of life at least every `heartbeat` seconds."""
    timeout: _Seconds | None = None
    """The engine ends the attempt as timed out `timeout` seconds after its start."""
    deadline: _Seconds | None = None
    """Of a question: how long it can be answered. Of a cancel request: how long until the end is forced."""
    ask: _Name | None = None
    """Id of a question, unique in the task."""
    again: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    """Of the delivery of an answer: how often the producer had asked again when it got the answer. None: never."""
    text: _Text | None = None
    options: Annotated[list[_Title], Meta(max_length=MAX_OPTIONS)] | None = None
    by: _Name | None = None
    value: Any = None
    verb: _Name | None = None
    """Of an answer: the verb with which it was given."""
    call: _Name | None = None
    """Of an answer or a request that the engine stores: a unique id, which says which one won."""
    result: Any = None
    error: _Text | None = None
    delay: Annotated[float, Meta(ge=0, le=31_536_000)] | None = None
    """Of a failed attempt: seconds until the next one is expected to start."""
    forced: bool = False
    dropped: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    """How many output lines the producer had to leave out before this event."""


def event_of(envelope: Envelope) -> TaskEvent | None:
    """The task event of an envelope on a task channel; None for a message that only passes through."""
    return _EVENTS.get(envelope.event or "")


def data_of(envelope: Envelope, event: TaskEvent) -> TaskData:
    """The checked data of a task event. Raises MessageError(BAD_MESSAGE) with the name of the key at fault."""
    raw = envelope.data
    try:
        if _says_nothing(raw):
            data = TaskData()
        elif isinstance(raw, Raw):
            data = _decode(raw)
        else:
            data = msgspec.convert(raw, TaskData)
    except msgspec.MsgspecError as error:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{event}: {explain(error)}") from None
    if data.ask is None and event in _NEED_ASK:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{event}: `ask` is missing")
    return data


def with_data(envelope: Envelope, changes: Mapping[str, Any]) -> Any:
    """The envelope's data with `changes` put in. The form stays: JSON bytes stay JSON bytes."""
    raw = envelope.data
    if _says_nothing(raw):
        return Raw(_encode(changes))
    if isinstance(raw, Raw):
        return Raw(_encode({**_decode_any(raw), **changes}))
    return {**raw, **msgspec.to_builtins(changes)}


def _says_nothing(raw: Any) -> bool:
    """Whether there is no data: absent and null mean the same."""
    return raw is None or raw == _NULL


_decode = msgspec.json.Decoder(TaskData).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")
_EVENTS: dict[str, TaskEvent] = {event.value: event for event in TaskEvent if event is not TaskEvent.SNAPSHOT}
_EVENTS["task_progress_update"] = TaskEvent.PROGRESS  # as older producers call it
_NEED_ASK = frozenset((TaskEvent.ASKED, TaskEvent.ASK_EXPIRED, TaskEvent.DELIVERED))
