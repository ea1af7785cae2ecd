"""A task as a viewer sees it: its snapshot and newest output, folded from what a subscription yields. Without I/O."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from fanline.client.message import Gap, Message, is_snapshot
from fanline.client.task_events import OutputLine, TaskUpdate
from fanline.errors import ConnectionLost, ServerError
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.events import AskKind, Stream, TaskData, TaskEvent, data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Ask, Snapshot
from fanline.protocol.tasks.states import TaskState

Verb = tuple[str, Any]
"""A verb and its data."""


class WatchedTask:
    """What the view of a task is in all programs, with an event loop and without."""

    def __init__(self, channel: str, lines: int, *, follow: bool, by: str | None) -> None:
        self.channel = channel
        self.snapshot = Snapshot()
        """The task after everything that was taken from the iterator."""
        self.output: deque[OutputLine] = deque(maxlen=lines)
        """The newest lines of the log, including those of older attempts, oldest first."""
        self.joined: TaskUpdate
        """The update it began with, of the kind SNAPSHOT."""
        self._follow = follow
        self._own = {} if by is None else {"by": by}
        self._gap: Gap | None = None

    @property
    def id(self) -> str:
        return self.channel.partition(":")[2]

    # --- upstream -----------------------------------------------------------------------------------------------

    def _cancel(self, deadline: float | None, *, force: bool) -> Verb:
        how = {"deadline": deadline, "force": force or None}
        return "cancel", self._own | {key: value for key, value in how.items() if value is not None}

    def _send_input(self, value: Any, ask: str | None) -> Verb:
        question = self.snapshot.ask
        if ask is None and question is not None and question.open and wants_value(question):
            ask = question.id
        return "input", self._own | {"value": value} | ({} if ask is None else {"ask": ask})

    def _approve(self, ask: str | None, value: Any) -> Verb:
        chosen = {} if value is None else {"value": value}
        return "approve", self._own | {"ask": self._asked(ask)} | chosen

    def _reject(self, ask: str | None) -> Verb:
        return "reject", self._own | {"ask": self._asked(ask)}

    def _asked(self, ask: str | None) -> str:
        question, state = self.snapshot.ask, self.snapshot.state
        if ask is not None:
            return ask
        if state is TaskState.UNKNOWN:
            raise ServerError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {self.channel}")
        if self.snapshot.ended_for_good:
            raise ServerError(ErrorCode.TASK_ENDED, f"{self.channel} has ended ({state})")
        if question is None or not question.open:
            raise ServerError(ErrorCode.BAD_STATE, f"{self.channel} asks nothing; it is {state}")
        return question.id

    # --- folding ------------------------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        """Whether the iterator ends here."""
        return self.snapshot.ended_for_good and self._gap is None and not self._follow

    def _join(self, update: TaskUpdate) -> None:
        self.joined = update
        if update.kind is not TaskEvent.SNAPSHOT:
            raise ServerError(ErrorCode.NOT_SUPPORTED, f"{self.channel} is an ordinary channel on this server, no task")

    def _take(self, item: Message | Gap) -> TaskUpdate | None:
        """The update that an item stands for, if it is one for the program."""
        if isinstance(item, Gap):
            if item.last is not None:  # otherwise nothing is known to be missing, and no snapshot follows
                self._gap = item  # reported with the snapshot that follows
            return None
        return self._begin(item) if is_snapshot(item) else self._fold(item)

    def _begin(self, message: Message) -> TaskUpdate:
        try:
            snapshot = msgspec.convert(message.data["snapshot"], Snapshot)
            batches = msgspec.convert(message.data["output"], list[TaskData])
        except (msgspec.ValidationError, LookupError, TypeError) as error:
            raise ConnectionLost(f"the server sent a snapshot that cannot be read: {error}", final=True) from None
        before, self.snapshot = self.snapshot, snapshot
        self.output.clear()
        for data in batches:
            self.output += self._lines_of(data, data.first or 0)
        gap, self._gap = self._gap, None
        return TaskUpdate(
            TaskEvent.SNAPSHOT,
            snapshot,
            before.state,
            message,
            new_attempt=snapshot.attempt > before.attempt > 0,
            gap=gap,
        )

    def _fold(self, message: Message) -> TaskUpdate | None:
        """The update that a message stands for; None if it does not fit: then every viewer ignores it."""
        envelope, before = Envelope(event=message.event, data=message.data), self.snapshot
        event = event_of(envelope)
        if event is None:
            return TaskUpdate(None, before, before.state, message)
        try:
            data = data_of(envelope, event)
            self.snapshot = apply(before, event, data, message.time or 0)
        except MessageError:
            return None
        begun = self.snapshot.attempt > before.attempt > 0
        if begun:
            self._supersede()
        lines: tuple[OutputLine, ...] = ()
        if event is TaskEvent.OUTPUT:
            lines = tuple(self._lines_of(data, self.snapshot.lines - len(data.lines or ())))
            self.output += lines
        return TaskUpdate(event, self.snapshot, before.state, message, data, lines, begun)

    def _lines_of(self, data: TaskData, first: int) -> Iterable[OutputLine]:
        attempt, stream = data.attempt or self.snapshot.attempt, data.stream or Stream.STDOUT
        superseded = attempt < self.snapshot.attempt
        for number, text in enumerate(data.lines or (), first):
            yield OutputLine(text, stream, number, attempt, superseded)

    def _supersede(self) -> None:
        lines = [line if line.superseded else replace(line, superseded=True) for line in self.output]
        self.output = deque(lines, self.output.maxlen)


def wants_value(question: Ask) -> bool:
    """Whether the answer is more than yes or no."""
    return question.kind is AskKind.INPUT or bool(question.options)
