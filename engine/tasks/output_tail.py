"""The newest output lines of a task, bounded in lines and in characters, in the batches that viewers are sent."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fanline.protocol.messages.commands import MAX_LINES
from fanline.protocol.tasks.events import MAX_LINE, Stream

MAX_CHARACTERS = 64 * 1024
_MERGED = 100  # a batch with fewer lines takes in the next one


class OutputBatch(msgspec.Struct, omit_defaults=True, gc=False):
    """Consecutive lines: the data of a `task_output` as viewers get it."""

    lines: list[str]
    first: int
    """Number of the first line in the attempt's output, from 0."""
    attempt: int
    stream: Stream = Stream.STDOUT

    def without_first(self, count: int) -> "OutputBatch":
        """The batch without its first `count` lines; itself if these are none."""
        if not count:
            return self
        return OutputBatch(self.lines[count:], self.first + count, self.attempt, self.stream)


class OutputTail:
    """`batches`: what `newest` returned, decoded from JSON; msgspec.ValidationError if it is anything else."""

    __slots__ = ("_batches", "_characters", "_lines")

    def __init__(self, batches: Any = ()) -> None:
        self._batches: list[OutputBatch] = []  # few; a deque takes ten times the room of an empty list
        self._lines = 0
        self._characters = 0
        self.extend(msgspec.convert(batches, list[OutputBatch]))

    @property
    def empty(self) -> bool:
        return not self._lines

    def extend(self, batches: Iterable[OutputBatch]) -> None:
        """Add what `newest` of another tail returned, without the lines that this one has already."""
        for batch in batches:
            rest = batch.without_first(self._known_of(batch))
            self.append(rest.lines, rest.first, rest.attempt, rest.stream)

    def _known_of(self, batch: OutputBatch) -> int:
        """How many of its lines are here, from the first."""
        newest = self._batches[-1] if self._batches else None
        if newest is None or newest.attempt < batch.attempt:
            return 0
        known = newest.first + len(newest.lines) - batch.first if newest.attempt == batch.attempt else len(batch.lines)
        return min(max(0, known), len(batch.lines))

    def append(self, lines: Sequence[str], first: int, attempt: int, stream: Stream) -> None:
        """Add new lines; those longer than MAX_LINE are cut."""
        added = [line[:MAX_LINE] for line in lines[-MAX_LINES:]]
        first += len(lines) - len(added)
        if not added:
            return
        newest = self._batches[-1] if self._batches else None
        follows = newest is not None and (newest.attempt, newest.stream) == (attempt, stream)
        if newest is not None and follows and newest.first + len(newest.lines) == first and len(newest.lines) < _MERGED:
            newest.lines += added
        else:
            self._batches.append(OutputBatch(added, first, attempt, stream))
        self._lines += len(added)
        self._characters += sum(map(len, added))
        self._trim()

    def newest(self, count: int) -> list[OutputBatch]:
        """The newest `count` lines, oldest first; valid until the next `append`, which may add to a batch."""
        taken: list[OutputBatch] = []
        for batch in reversed(self._batches):
            if count <= 0:
                break
            skipped = max(0, len(batch.lines) - count)
            taken.append(batch.without_first(skipped))
            count -= len(batch.lines)
        return taken[::-1]

    def _trim(self) -> None:
        while self._lines > MAX_LINES or self._characters > MAX_CHARACTERS:
            oldest = self._batches[0]
            self._characters -= len(oldest.lines.pop(0))
            self._lines -= 1
            oldest.first += 1
            if not oldest.lines:
                del self._batches[0]
