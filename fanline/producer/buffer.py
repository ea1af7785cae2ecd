"""What a job has said and NATS has not got yet: bounded, in order. Pure; the time is an argument (seconds, any epoch).

- State events are kept, in the order of the calls, whatever happens.
- Progress: of what is unsent since the last state event only the newest is kept, merged over what was said before it,
  at the place of the oldest; at most one message in PROGRESS_SECONDS.
- Output lines are gathered into messages, for FLUSH_SECONDS at most, until something else was said or the message is
  full. Of too many the oldest are dropped, and the next output message says how many.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from fanline.protocol.tasks.events import Stream, TaskEvent

MAX_LINES = 10_000
MAX_BYTES = 4 << 20
MESSAGE_LINES = 200
MESSAGE_BYTES = 32 << 10
FLUSH_SECONDS = 0.05
PROGRESS_SECONDS = 0.05
_NEVER = float("inf")


class Message(NamedTuple):
    """What is to be sent: an event, its data, and when the job said it."""

    event: TaskEvent
    data: dict[str, Any]
    time: float


@dataclass(eq=False, slots=True)
class _Told:
    """A state event or progress."""

    event: TaskEvent
    data: dict[str, Any]
    time: float


@dataclass(eq=False, slots=True)
class _Output:
    """Lines that will be one message."""

    stream: Stream
    lines: deque[str]
    size: int
    time: float

    def has_room(self, size: int) -> bool:
        return len(self.lines) < MESSAGE_LINES and self.size + size <= MESSAGE_BYTES


class TaskBuffer:
    """The unsent events of one task."""

    def __init__(self) -> None:
        self.dropped = 0
        """Lines that were left out so far."""
        self._queue: deque[_Told | _Output] = deque()
        self._outputs: deque[_Output] = deque()  # those of the queue, in its order
        self._progress: _Told | None = None  # of the queue: newer progress is merged into it
        self._lines = 0
        self._bytes = 0
        self._untold = 0  # dropped lines that no message has told yet
        self._next_progress = -_NEVER

    def add_state(self, event: TaskEvent, data: dict[str, Any], now: float) -> None:
        self._queue.append(_Told(event, data, now))
        self._progress = None

    def add_progress(self, data: dict[str, Any], now: float) -> None:
        if self._progress is None:
            self._progress = _Told(TaskEvent.PROGRESS, data, now)
            self._queue.append(self._progress)
        else:
            self._progress.data = _merged(self._progress.data, data)
            self._progress.time = now

    def add_output(self, lines: list[str], stream: Stream, now: float) -> None:
        for line in lines[-MAX_LINES:]:
            size = _size(line)
            last = self._queue[-1] if self._queue else None
            if not isinstance(last, _Output) or last.stream is not stream or not last.has_room(size):
                last = _Output(stream, deque(), 0, now)
                self._queue.append(last)
                self._outputs.append(last)
            last.lines.append(line)
            last.size += size
            self._lines += 1
            self._bytes += size
            if self._lines > MAX_LINES or self._bytes > MAX_BYTES:
                self._drop_oldest()
        self._count_dropped(max(0, len(lines) - MAX_LINES))

    @property
    def due(self) -> float:
        """When there is something to take; infinity if there is nothing at all."""
        if not self._queue:
            return _NEVER
        head = self._queue[0]
        if isinstance(head, _Output):
            grows = len(self._queue) == 1 and head.has_room(1)
            return head.time + (FLUSH_SECONDS if grows else 0.0)
        return self._next_progress if head.event is TaskEvent.PROGRESS else -_NEVER

    def take(self, now: float, room: int) -> list[Message]:
        """The messages that are due, oldest first, at most `room`."""
        messages: list[Message] = []
        while len(messages) < room and self.due <= now:
            messages.append(self._pop(now))
        return messages

    def give_up(self) -> tuple[int, int]:
        """Throw everything away: (events, of which output lines count as one each but stand apart)."""
        events, lines = len(self._queue) - len(self._outputs), self._lines
        self._queue.clear()
        self._outputs.clear()
        self._progress = None
        self._lines = self._bytes = 0
        self.dropped += lines
        return events, lines

    def _pop(self, now: float) -> Message:
        head = self._queue.popleft()
        if isinstance(head, _Told):
            if head is self._progress:
                self._progress = None
            if head.event is TaskEvent.PROGRESS:
                self._next_progress = now + PROGRESS_SECONDS
            return Message(head.event, head.data, head.time)
        self._outputs.popleft()
        self._lines -= len(head.lines)
        self._bytes -= head.size
        data: dict[str, Any] = {"lines": list(head.lines), "stream": str(head.stream)}
        if self._untold:
            data["dropped"], self._untold = self._untold, 0
        return Message(TaskEvent.OUTPUT, data, head.time)

    def _drop_oldest(self) -> None:
        while self._lines > MAX_LINES or self._bytes > MAX_BYTES:
            oldest = self._outputs[0]
            size = _size(oldest.lines.popleft())
            oldest.size -= size
            self._lines -= 1
            self._bytes -= size
            self._count_dropped(1)
            if not oldest.lines:
                self._outputs.popleft()
                self._queue.remove(oldest)

    def _count_dropped(self, lines: int) -> None:
        self.dropped += lines
        self._untold += lines


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """One progress that says what both said one after the other. Percent and done exclude each other: the newer
    counts.
    """
    kept = old
    if "percent" in new and "done" not in new:
        kept = {key: value for key, value in old.items() if key != "done"}
    elif "done" in new and "percent" not in new:
        kept = {key: value for key, value in old.items() if key != "percent"}
    return kept | new


def _size(line: str) -> int:
    """Bytes in UTF-8."""
    return len(line) if line.isascii() else len(line.encode())
