"""A task in this process: its channel's events folded in their order into a snapshot, an estimate and a log tail.

Every worker folds the tasks that its viewers watch, and the task monitor folds all of them. As the stream gives all of
them the same events in the same order, they come to the same result without having to agree. A task record, which the
monitor stores (monitor/stored/records.py), spares later readers the events before it, and outlives them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.engine.bus.stored import Epoch
from fanline.engine.clock import unix_ms
from fanline.engine.faults import OnFault, fault_gap
from fanline.engine.tasks.output_tail import OutputTail
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.estimate import Estimate, seconds_left
from fanline.protocol.tasks.events import Stream, TaskData, TaskEvent, event_of, with_data
from fanline.protocol.tasks.fold import apply, attempt_of, conflation_key
from fanline.protocol.tasks.leniency import understood
from fanline.protocol.tasks.publications import event_of_producer
from fanline.protocol.tasks.serials import TakenBeforeError
from fanline.protocol.tasks.snapshot import Snapshot, progress_of, snapshot_fields
from fanline.protocol.tasks.states import ENGINE_EVENTS, WAITING, TaskState

ALL_LINES = 10**6
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("fanline.tasks")

OnRefused = Callable[[str, MessageError], None]
"""Called with the channel when an event is left out."""


class Outcome:
    """What became of a message that is on its way through the stream."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.refusal: MessageError | None = None


class TaskFold:
    """The fold of one task's channel. `on_fault` is called when an event, or a record, breaks it."""

    __slots__ = ("_expected", "_on_fault", "_on_refused", "channel", "estimate", "offset", "output", "snapshot")

    def __init__(
        self,
        channel: str,
        on_refused: OnRefused = lambda channel, error: None,
        on_fault: OnFault = lambda channel, what: None,
    ) -> None:
        self.channel = channel
        self.snapshot = Snapshot()
        self.estimate = Estimate()
        self.output = OutputTail()
        self.offset = 0
        """Everything up to here is folded in."""
        self._on_refused = on_refused
        self._on_fault = on_fault
        self._expected: dict[str, Outcome] = {}

    # --- events --------------------------------------------------------------------------------------------------

    def take(self, envelope: Envelope, offset: int) -> Envelope | None:
        """Fold the next message of the channel; what viewers are to get of it: None for an event that does not fit, the
        message as it is if its data is beyond us, a `gap` if it breaks the fold, which goes on without it as in every
        worker.
        """
        outcome = self._expected.pop(envelope.id or "", None) if self._expected else None
        event = event_of(envelope)
        try:
            if offset <= self.offset or event is None:
                return envelope  # the record that was loaded knows of it, or it is no event of a task
            return self._fold(envelope, event)
        except MessageError as error:
            if is_mistake(event, error):
                self._on_refused(self.channel, error)
            if outcome is not None:
                outcome.refusal = error
            return envelope if error.code is ErrorCode.BAD_MESSAGE and event not in ENGINE_EVENTS else None
        except Exception:  # noqa: BLE001  # our own fault
            self._on_fault(self.channel, f"message {offset} breaks the fold")
            if outcome is not None:
                outcome.refusal = MessageError(ErrorCode.BAD_STATE, "the server failed on this event; its log says why")
            return fault_gap(self.channel, offset)
        finally:
            if offset > self.offset:
                self.offset = offset
            if outcome is not None:
                outcome.settled.set()

    def skip(self, offset: int) -> None:
        """The channel's next message cannot be read."""
        self.offset = max(self.offset, offset)

    @contextmanager
    def expect(self, message_id: str) -> Iterator[Outcome]:
        """To learn, once the message of this id comes back from the stream, whether it was taken."""
        outcome = self._expected[message_id] = Outcome()
        try:
            yield outcome
        finally:
            self._expected.pop(message_id, None)

    def _fold(self, envelope: Envelope, event: TaskEvent) -> Envelope:
        """Take one event; what viewers get of it. MessageError if it does not fit: then nothing has changed."""
        envelope, said = understood(envelope, event)
        before = self.snapshot
        data, after, self.estimate = advance(before, self.estimate, event, said, envelope.time or 0)
        self.snapshot = after
        if event is TaskEvent.OUTPUT:
            self.output.append(data.lines or (), data.first or 0, after.attempt, data.stream or Stream.STDOUT)
        additions = _additions(event, said, data, after)
        return msgspec.structs.replace(envelope, data=with_data(envelope, additions), key=_key(event, before, after))

    # --- snapshot and record ---------------------------------------------------------------------------------------

    def snapshot_message(self, lines: int, offset: int) -> Envelope:
        """What a viewer begins with: everything up to `offset`, with the newest `lines` lines of the output."""
        data = _encode({"snapshot": snapshot_fields(self.snapshot), "output": self.output.newest(lines)})
        return Envelope(
            MessageType.PUB,
            channel=self.channel,
            offset=offset,
            event=TaskEvent.SNAPSHOT,
            data=msgspec.Raw(data),
            time=unix_ms(),
        )

    def restart(self, *, forget: bool) -> None:
        """Offsets begin again. What is known of the task stays if the stream was recreated, for it is in no stream any
        more; of an older copy it is folded again.
        """
        self.offset = 0
        if forget:
            self.snapshot, self.estimate, self.output = Snapshot(), Estimate(), OutputTail()

    def record(self, epoch: Epoch, lines: int = ALL_LINES) -> bytes:
        """Everything, to be loaded elsewhere; `epoch` is that of the stream."""
        return TaskRecord(self.snapshot, self.estimate, self.output, epoch.name, self.offset).encode(lines)

    def load(self, record: bytes, epoch: Epoch) -> None:
        """Go on from a record. One of another epoch of the stream still says how the task was, but not up to where. A
        record that breaks something is left out.
        """
        try:
            self._load(record, epoch)
        except Exception:  # noqa: BLE001  # our own fault, which every worker would meet
            self._on_fault(self.channel, "the task record is left out")

    def _load(self, record: bytes, epoch: Epoch) -> None:
        found = read_record(self.channel, record, epoch)
        if found is None or (found.offset <= self.offset and self.snapshot != Snapshot()):
            return
        snapshot, output, known = found.snapshot, found.output, self.snapshot
        if snapshot.attempt == known.attempt and snapshot.lines < known.lines:
            # The monitor has missed some of the events that we have: our lines keep their numbers.
            snapshot, output = msgspec.structs.replace(snapshot, lines=known.lines), self.output
        self.snapshot, self.estimate, self.output, self.offset = snapshot, found.estimate, output, found.offset


class TaskRecord(NamedTuple):
    """A task as it is stored."""

    snapshot: Snapshot
    estimate: Estimate
    output: OutputTail
    epoch: str
    """Name of the stream's epoch."""
    offset: int
    """Everything up to here is in it; 0 if that was in an epoch whose offsets no longer mean the same."""

    def encode(self, lines: int = ALL_LINES) -> bytes:
        return _encode(
            {
                "epoch": self.epoch,
                "offset": self.offset,
                "snapshot": snapshot_fields(self.snapshot),
                "estimate": self.estimate,
                "output": self.output.newest(lines),
            }
        )


def read_record(channel: str, record: bytes, epoch: Epoch) -> TaskRecord | None:
    """A task as it was stored; `epoch`: that of its stream now. None if the stream is an older copy in which it is not,
    or, logged, if the record cannot be read.
    """
    try:
        found = msgspec.json.decode(record)
        snapshot, estimate = msgspec.convert(found["snapshot"], Snapshot), Estimate(*found["estimate"])
        output = OutputTail(found["output"])
        offset, name = int(found["offset"]), str(found["epoch"])
        if epoch.went_back_from(name, offset):
            return None
        return TaskRecord(snapshot, estimate, output, epoch.name, offset if epoch.covers(name, offset) else 0)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, RecursionError) as error:
        _log.warning("the record of %s cannot be read: %s", channel, error)
        return None


# --- one event, as values -----------------------------------------------------------------------------------------


def advance(
    before: Snapshot, estimate: Estimate, event: TaskEvent, said: TaskData, time: int
) -> tuple[TaskData, Snapshot, Estimate]:
    """An event's data with what only the engine says of it, and what is known of the task after it. MessageError."""
    data, estimate = _filled_in(said, event, before, estimate, time)
    after = apply(before, event, data, time)
    if before.state in WAITING and after.state is TaskState.RUNNING:
        estimate = estimate.resume(time)
    return data, after, estimate


def _filled_in(
    said: TaskData, event: TaskEvent, before: Snapshot, estimate: Estimate, time: int
) -> tuple[TaskData, Estimate]:
    """An event's data with what only the engine says of it (rate and ETA, or the line number); the estimate."""
    if attempt_of(before, event, said) > before.attempt:
        before, estimate = Snapshot(), Estimate()
    if event is TaskEvent.PROGRESS:
        estimate = _advanced(estimate, before, said, time)
        left = seconds_left(estimate.eta, estimate.time, time)
        return msgspec.structs.replace(said, rate=estimate.rate, eta=left), estimate
    if event is TaskEvent.OUTPUT:
        return msgspec.structs.replace(said, first=before.lines), estimate
    return said, estimate


def _advanced(estimate: Estimate, snapshot: Snapshot, data: TaskData, time: int) -> Estimate:
    """The estimate after progress; a fresh one when the producer counts in something else from now on."""
    counts = data.done is not None
    value = data.done if counts else data.percent
    if value is None:
        return estimate  # only a stage or a message
    if estimate.time is not None and counts != (snapshot.done is not None):
        estimate = Estimate()
    return estimate.advance(value, (data.total or snapshot.total) if counts else 100.0, time)


def _additions(event: TaskEvent, said: TaskData, data: TaskData, after: Snapshot) -> dict[str, Any]:
    """The keys that viewers get besides those that the producer has said itself, and said right."""
    additions: dict[str, Any] = {"state": after.state}
    if said.attempt != after.attempt:
        additions["attempt"] = after.attempt
    if event is TaskEvent.PROGRESS:
        additions |= progress_of(after, said)
    elif said.first != data.first:
        additions["first"] = data.first
    return additions


def _key(event: TaskEvent, before: Snapshot, after: Snapshot) -> str | None:
    """The conflation key of an event. Progress that begins an attempt, or ends a stall, must not be replaced by newer
    progress: what follows builds upon it.
    """
    moved = before.state is not after.state or before.attempt != after.attempt
    return None if moved else conflation_key(event)


def is_mistake(event: TaskEvent | None, error: MessageError) -> bool:
    """Whether a refused event is a mistake of its producer. The second of two engine events is not, and neither is an
    event that was published again because it was not known to be stored.
    """
    return event not in ENGINE_EVENTS and not isinstance(error, TakenBeforeError)


# --- for others ---------------------------------------------------------------------------------------------------


def check_task_message(envelope: Envelope, *, signed: bool) -> None:
    """Make a message fit for a task channel; MessageError if its publisher may not publish it. `signed`: it was the
    engine.
    """
    event = event_of(envelope) if signed and envelope.event != TaskEvent.SNAPSHOT else event_of_producer(envelope)
    if event is None:
        return
    envelope.event = event
    envelope.ttl = None  # it has been folded, so every viewer must get it
