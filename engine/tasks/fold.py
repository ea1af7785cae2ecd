"""A task in this process: its channel's events folded in their order into a snapshot, an estimate and a log tail.

Every worker folds the tasks that its viewers watch, and the keeper folds all. As the stream gives all of them the same
events in the same order, all come to the same; there is nothing to agree on. A checkpoint, which the keeper writes
(engine/tasks/monitor.py), only spares whoever begins later the events before it, and outlives them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from fanline.engine.bus.interface import Bus, Stored
from fanline.engine.slices import Slices
from fanline.engine.tasks.output_tail import OutputTail
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.names import Bucket, channel_key
from fanline.protocol.tasks.estimate import Estimate, seconds_left
from fanline.protocol.tasks.events import Stream, TaskData, TaskEvent, data_of, event_of, with_data
from fanline.protocol.tasks.fold import apply, attempt_of, conflation_key
from fanline.protocol.tasks.snapshot import Snapshot, progress_of, snapshot_fields
from fanline.protocol.tasks.states import ENGINE_EVENTS, WAITING, TaskState

DEFAULT_LINES = 200
"""Lines of the log tail for a viewer who does not say how many."""
_log = logging.getLogger("fanline.tasks")

OnRefused = Callable[[str, MessageError], None]
"""Called with the channel when an event is left out."""


class Outcome:
    """What became of a message that is on its way through the stream."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.refusal: MessageError | None = None


class TaskLog:
    def __init__(self, channel: str, on_refused: OnRefused = lambda channel, error: None) -> None:
        self.channel = channel
        self.snapshot = Snapshot()
        self.estimate = Estimate()
        self.output = OutputTail()
        self.offset = 0
        """Everything up to here is folded in."""
        self._on_refused = on_refused
        self._expected: dict[str, Outcome] = {}

    def take(self, envelope: Envelope, offset: int) -> Envelope | None:
        """Fold the next message of the channel; what viewers are to get of it, None for an event that does not fit."""
        if offset <= self.offset:
            return envelope  # a checkpoint has told of it
        self.offset = offset
        event = event_of(envelope)
        outcome = self._expected.pop(envelope.id or "", None) if self._expected else None
        try:
            if event is not None:
                envelope = self._fold(envelope, event)
        except MessageError as error:
            if event not in ENGINE_EVENTS:  # of which the one that comes second is no mistake
                self._on_refused(self.channel, error)
            if outcome is not None:
                outcome.refusal = error
            return None
        finally:
            if outcome is not None:
                outcome.settled.set()
        return envelope

    @contextmanager
    def expect(self, message_id: str) -> Iterator[Outcome]:
        """To be told, once the message of this id comes back from the stream, whether it was taken."""
        outcome = self._expected[message_id] = Outcome()
        try:
            yield outcome
        finally:
            self._expected.pop(message_id, None)

    def frame(self, lines: int, time_ms: int, offset: int) -> Envelope:
        """What a viewer begins with: everything up to `offset`, with the newest so many lines of the output."""
        data = {"snapshot": snapshot_fields(self.snapshot), "output": msgspec.to_builtins(self.output.newest(lines))}
        return Envelope(
            MessageType.PUB, channel=self.channel, offset=offset, event=TaskEvent.SNAPSHOT, data=data, time=time_ms
        )

    def checkpoint(self, epoch: str, lines: int = 10**6) -> bytes:
        """Everything, to be loaded elsewhere; `epoch` is that of the stream."""
        return msgspec.json.encode(
            {
                "epoch": epoch,
                "offset": self.offset,
                "snapshot": snapshot_fields(self.snapshot),
                "estimate": self.estimate,
                "output": self.output.newest(lines),
            }
        )

    def load(self, value: bytes, epoch: str) -> None:
        """Go on from a checkpoint. One of another life of the stream still says how the task was, not up to where."""
        try:
            found = msgspec.json.decode(value)
            snapshot = msgspec.convert(found["snapshot"], Snapshot)
            estimate = Estimate(*found["estimate"])
            output = OutputTail(found["output"])
            offset = int(found["offset"]) if found["epoch"] == epoch else 0
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            _log.warning("the checkpoint of %s cannot be read: %s", self.channel, error)
            return
        if offset <= self.offset and self.snapshot != Snapshot():
            return
        known = self.snapshot
        if snapshot.attempt == known.attempt and snapshot.lines < known.lines:
            # The keeper has missed some of what we have heard: our lines keep their numbers.
            snapshot, output = msgspec.structs.replace(snapshot, lines=known.lines), self.output
        self.snapshot, self.estimate, self.output, self.offset = snapshot, estimate, output, offset

    def _fold(self, envelope: Envelope, event: TaskEvent) -> Envelope:
        data = data_of(envelope, event)
        before, time = self.snapshot, envelope.time or 0
        claimed = [key for key in ("rate", "eta") if getattr(data, key) is not None]
        begins = attempt_of(before, event, data) > before.attempt
        estimate = Estimate() if begins else self.estimate
        if event is TaskEvent.PROGRESS:
            estimate = self._advanced(estimate, data, time)
            data.rate, data.eta = estimate.rate, seconds_left(estimate.eta, estimate.time, time)
        elif event is TaskEvent.OUTPUT:
            data.first = 0 if begins else before.lines
        after = apply(before, event, data, time)
        if before.state in WAITING and after.state is TaskState.RUNNING:
            estimate = estimate.resume(time)
        self.snapshot, self.estimate = after, estimate
        changes: dict[str, Any] = {"state": after.state, "attempt": after.attempt}
        if event is TaskEvent.PROGRESS:
            changes |= dict.fromkeys(claimed) | progress_of(after)
        elif event is TaskEvent.OUTPUT:
            changes["first"] = data.first
            self.output.append(data.lines or (), data.first or 0, after.attempt, data.stream or Stream.STDOUT)
        # Progress that begins an attempt, or ends a stall, must not give way: what follows builds upon it.
        moved = (before.state, before.attempt) != (after.state, after.attempt)
        key = None if moved else conflation_key(event)
        return msgspec.structs.replace(envelope, data=with_data(envelope, changes), key=key)

    def _advanced(self, known: Estimate, data: TaskData, time: int) -> Estimate:
        """The estimate after progress; begun anew when the producer counts in something else."""
        counts = data.done is not None
        value = data.done if counts else data.percent
        if value is None:
            return known  # only a stage or a message
        if known.time is not None and counts != (self.snapshot.done is not None):
            known = Estimate()
        return known.advance(value, (data.total or self.snapshot.total) if counts else 100.0, time)


def check_task_message(envelope: Envelope) -> None:
    """Make a producer's message fit for a task channel; MessageError(BAD_MESSAGE) if nobody may say it."""
    if envelope.event == TaskEvent.SNAPSHOT:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{envelope.event} is said by the engine alone")
    if event_of(envelope) is not None:
        envelope.ttl = None  # it has been folded, so everybody must get it


async def restore(
    bus: Bus, read: Callable[[Stored], Envelope | None], log: TaskLog, epoch: str, until: int | None = None
) -> None:
    """Bring a new log up to date: its checkpoint, then what the stream has after it, up to `until`. BusError.

    `read` makes an envelope of a stored message, None if it is none. The checkpoint may already be beyond `until`.
    """
    note = await bus.kv_get(Bucket.TASKS, channel_key(log.channel))
    if note is not None and note.value:
        log.load(note.value, epoch)
    more, slices = 1, Slices()
    while more and (until is None or log.offset < until):
        page = await bus.read(log.channel, log.offset + 1)
        for stored in page.messages:
            if until is not None and stored.position.offset > until:
                return
            envelope = read(stored)
            if envelope is not None:
                log.take(envelope, stored.position.offset)
            log.offset = stored.position.offset
            await slices.breathe()
        more = page.more if page.messages else 0
