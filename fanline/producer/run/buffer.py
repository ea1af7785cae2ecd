"""The unsent events of a task: bounded, in order. Pure; the time is an argument (seconds since any epoch).

- State events are always kept, in the order of the calls.
- Of the unsent progress since the last state event, only the newest is kept, merged over the earlier progress and in
  the place of the oldest. Progress is sent at most once in PROGRESS_SECONDS.
- Output lines are collected into one event until something else happens, the event is full, or FLUSH_SECONDS have
  passed. When there are too many lines, the oldest are dropped, and the next output event says how many.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.tasks.events import Stream, TaskEvent

MAX_LINES = 10_000
MAX_BYTES = 4 << 20
EVENT_LINES = 200
EVENT_BYTES = 32 << 10
FLUSH_SECONDS = 0.05
PROGRESS_SECONDS = 0.05
SMALL = 1024
"""Bytes of JSON of a value that is left in an event of which little may be left."""
_NEVER = float("inf")


class BufferedEvent(NamedTuple):
    """An event that is ready to be sent, and the time at which the job reported it."""

    event: TaskEvent
    data: dict[str, Any]
    time: float


@dataclass(eq=False, slots=True)
class _SingleEvent:
    """A state event or progress."""

    event: TaskEvent
    data: dict[str, Any]
    time: float


@dataclass(eq=False, slots=True)
class _OutputBatch:
    """Lines that will be one output event."""

    stream: Stream
    lines: deque[str]
    size: int
    time: float

    def has_room(self, size: int) -> bool:
        return len(self.lines) < EVENT_LINES and self.size + size <= EVENT_BYTES


class TaskBuffer:
    """The unsent events of one task."""

    def __init__(self) -> None:
        self.dropped = 0
        """Output lines dropped so far."""
        self._queue: deque[_SingleEvent | _OutputBatch] = deque()
        self._batches: deque[_OutputBatch] = deque()  # those in the queue, in the same order
        self._progress: _SingleEvent | None = None  # in the queue; newer progress is merged into it
        self._lines = 0
        self._bytes = 0
        self._unreported = 0  # dropped lines that no event has mentioned yet
        self._next_progress = -_NEVER

    def add_state(self, event: TaskEvent, data: dict[str, Any], now: float) -> None:
        self._queue.append(_SingleEvent(event, data, now))
        self._progress = None

    def add_progress(self, data: dict[str, Any], now: float) -> None:
        if self._progress is None:
            self._progress = _SingleEvent(TaskEvent.PROGRESS, data, now)
            self._queue.append(self._progress)
        else:
            self._progress.data = _merged(self._progress.data, data)
            self._progress.time = now

    def add_output(self, lines: list[str], stream: Stream, now: float) -> None:
        for line in lines[-MAX_LINES:]:
            size = _size(line)
            batch = self._batch_for(stream, size, now)
            batch.lines.append(line)
            batch.size += size
            self._lines += 1
            self._bytes += size
            self._drop_excess()
        self._count_dropped(max(0, len(lines) - MAX_LINES))

    @property
    def due(self) -> float:
        """The time from which `take` returns an event; infinity if the buffer is empty."""
        if not self._queue:
            return _NEVER
        head = self._queue[0]
        if isinstance(head, _OutputBatch):
            may_grow = len(self._queue) == 1 and head.has_room(1)
            return head.time + (FLUSH_SECONDS if may_grow else 0.0)
        return self._next_progress if head.event is TaskEvent.PROGRESS else -_NEVER

    @property
    def output_due(self) -> float:
        """The same if only output may be taken; infinity, too, while another event comes first."""
        return self.due if self._queue and isinstance(self._queue[0], _OutputBatch) else _NEVER

    def take(self, now: float, room: int, *, only_output: bool = False) -> list[BufferedEvent]:
        """Remove and return the events that are due, oldest first, at most `room`; with `only_output`, up to the first
        other event.
        """
        events: list[BufferedEvent] = []
        while len(events) < room and (self.output_due if only_output else self.due) <= now:
            events.append(self._pop(now))
        return events

    def discard(self) -> list[BufferedEvent]:
        """Remove and return all events. Their output counts as dropped."""
        self.dropped += self._lines
        return [self._pop(-_NEVER) for _ in range(len(self._queue))]

    @property
    def size(self) -> int:
        """Bytes of all events, about."""
        single = (each for each in self._queue if isinstance(each, _SingleEvent))
        return self._bytes + sum(len(msgspec.json.encode(each.data)) for each in single)

    def trim(self) -> int:
        """Drop all output, and the large values of the other events. Returns how many lines were dropped."""
        lines = self._lines
        self._count_dropped(lines)
        singles = [each for each in self._queue if isinstance(each, _SingleEvent)]
        self._queue = deque(singles)
        self._batches.clear()
        self._lines = self._bytes = 0
        for single in singles:
            single.data = without_large_values(single.data)
        return lines

    def _batch_for(self, stream: Stream, size: int, now: float) -> _OutputBatch:
        """The batch at the end of the queue if the next line may join it, otherwise a new one."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _OutputBatch) and last.stream is stream and last.has_room(size):
            return last
        batch = _OutputBatch(stream, deque(), 0, now)
        self._queue.append(batch)
        self._batches.append(batch)
        return batch

    def _pop(self, now: float) -> BufferedEvent:
        head = self._queue.popleft()
        return self._pop_output(head) if isinstance(head, _OutputBatch) else self._pop_single(head, now)

    def _pop_single(self, head: _SingleEvent, now: float) -> BufferedEvent:
        if head is self._progress:
            self._progress = None
        if head.event is TaskEvent.PROGRESS:
            self._next_progress = now + PROGRESS_SECONDS
        return BufferedEvent(head.event, head.data, head.time)

    def _pop_output(self, head: _OutputBatch) -> BufferedEvent:
        self._batches.popleft()
        self._lines -= len(head.lines)
        self._bytes -= head.size
        data: dict[str, Any] = {"lines": list(head.lines), "stream": str(head.stream)}
        if self._unreported:
            data["dropped"], self._unreported = self._unreported, 0
        return BufferedEvent(TaskEvent.OUTPUT, data, head.time)

    def _drop_excess(self) -> None:
        """Drop the oldest lines until the rest is within the bounds."""
        while self._lines > MAX_LINES or self._bytes > MAX_BYTES:
            oldest = self._batches[0]
            size = _size(oldest.lines.popleft())
            oldest.size -= size
            self._lines -= 1
            self._bytes -= size
            self._count_dropped(1)
            if not oldest.lines:
                self._batches.popleft()
                self._queue.remove(oldest)

    def _count_dropped(self, lines: int) -> None:
        self.dropped += lines
        self._unreported += lines


def without_large_values(data: dict[str, Any]) -> dict[str, Any]:
    """What remains of an event if it has to be small."""
    return {key: value for key, value in data.items() if len(msgspec.json.encode(value)) <= SMALL}


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """One progress that says what both said in turn. `percent` and `done` exclude each other; the newer counts."""
    kept = old
    if "percent" in new and "done" not in new:
        kept = {key: value for key, value in old.items() if key != "done"}
    elif "done" in new and "percent" not in new:
        kept = {key: value for key, value in old.items() if key != "percent"}
    return kept | new


def _size(line: str) -> int:
    """Bytes in UTF-8."""
    return len(line) if line.isascii() else len(line.encode())
