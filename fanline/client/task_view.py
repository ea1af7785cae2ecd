"""A task as a viewer sees it: its snapshot and newest output at any moment, and its updates as they come."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import msgspec

from fanline.client.message import Gap, Message, is_snapshot
from fanline.client.subscription import Subscription
from fanline.client.task_events import OutputLine, TaskUpdate
from fanline.errors import ConnectionLost, ServerError
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.tasks.events import AskKind, Stream, TaskData, TaskEvent, data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Ask, Snapshot
from fanline.protocol.tasks.states import TaskState

Call = Callable[[str, Any], Awaitable[Any]]
"""Sends a verb with its data to the task; returns the producer's answer."""


class TaskView:
    """Created by `Client.task`; enter it, then iterate:

    async with client.task("build-42") as task:
        print(task.snapshot.state, task.snapshot.percent)
        async for update in task:
            for line in update.lines:
                print(line.text)
        print(task.snapshot.result)

    Entering returns with the task as it is now: `snapshot`, and the newest lines of its log in `output`. Then the
    iterator yields what happens, as TaskUpdates; `snapshot` and `output` change as updates are taken from it. It ends
    by itself when the task has ended (at once if it had ended before), unless the view was created with `follow=True`:
    an ended task may be tried again. A task that is not known yet has the state `unknown`; the iterator waits for it.

    A lost connection is reopened, and the view continues where it was; if the server no longer has what came in
    between, an update of the kind SNAPSHOT says so. Iterating raises the errors of a Subscription.

    The verbs (`cancel`, `approve`, ...) ask the server once and return the producer's answer. They raise ServerError
    with one of the codes unknown_task, task_ended, bad_state, already_answered, no_producer, no_answer, refused and
    unavailable, or ConnectionLost if the connection ended before the answer: then it may have been done. An answer or a
    request to stop that is stored, but that the producer does not have yet, returns {"delivered": False}: it is
    delivered as soon as the producer can be reached, and `snapshot.ask.delivered` or `snapshot.stop.accepted` says so.
    """

    def __init__(
        self, messages: Subscription[Message | Gap], call: Call, lines: int, *, follow: bool, by: str | None
    ) -> None:
        self.channel = messages.channels[0]
        self.snapshot = Snapshot()
        """The task after everything that was taken from the iterator."""
        self.output: deque[OutputLine] = deque(maxlen=lines)
        """The newest lines of the log, including those of older attempts, oldest first."""
        self.joined: TaskUpdate
        """The update it began with, of the kind SNAPSHOT."""
        self._messages = messages
        self._call = call
        self._follow = follow
        self._own = {} if by is None else {"by": by}
        self._gap: Gap | None = None

    @property
    def id(self) -> str:
        return self.channel.partition(":")[2]

    async def __aenter__(self) -> Self:
        await self._messages.__aenter__()
        try:
            await self._join()
        except BaseException:
            await self._messages.__aexit__(None, None, None)
            raise
        return self

    async def _join(self) -> None:
        self.joined = await self._next_update()
        if self.joined.kind is not TaskEvent.SNAPSHOT:
            raise ServerError(ErrorCode.NOT_SUPPORTED, f"{self.channel} is an ordinary channel on this server, no task")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._messages.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskUpdate:
        if self.snapshot.ended_for_good and self._gap is None and not self._follow:
            raise StopAsyncIteration
        return await self._next_update()

    # --- upstream -----------------------------------------------------------------------------------------------

    async def call(self, verb: str, data: Any = None) -> Any:
        """Send a verb that the producer itself defines; returns its answer. TypeError or ValueError for data that JSON
        and CBOR cannot hold.
        """
        return await self._call(verb, data)

    async def cancel(self, deadline: float | None = None, *, force: bool = False) -> Any:
        """Ask the task to stop. After `deadline` seconds (by default the server's setting) it is ended by force; with
        `force` at once if no producer is attached that could stop it.

        Returns when the producer has accepted, which is before the end; ServerError "refused" if it has not.
        """
        how = {"deadline": deadline, "force": force or None}
        return await self._call("cancel", self._own | {key: value for key, value in how.items() if value is not None})

    async def send_input(self, value: Any, ask: str | None = None) -> Any:
        """Answer a question with any value: by default the open one, if it wants more than yes or no. Without one it is
        unsolicited input, such as a line for the stdin of `fanline run`.
        """
        question = self.snapshot.ask
        if ask is None and question is not None and question.open and wants_value(question):
            ask = question.id
        return await self._call("input", self._own | {"value": value} | ({} if ask is None else {"ask": ask}))

    async def approve(self, ask: str | None = None, value: Any = None) -> Any:
        """Answer yes to a question, by default the open one; `value` chooses one of its options."""
        chosen = {} if value is None else {"value": value}
        return await self._call("approve", self._own | {"ask": self._asked(ask)} | chosen)

    async def reject(self, ask: str | None = None) -> Any:
        """Answer no to a question, by default the open one."""
        return await self._call("reject", self._own | {"ask": self._asked(ask)})

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

    async def _next_update(self) -> TaskUpdate:
        while True:
            item = await anext(self._messages)
            if isinstance(item, Gap):
                if item.last is not None:  # otherwise nothing is known to be missing, and no snapshot follows
                    self._gap = item  # reported with the snapshot that follows
            elif is_snapshot(item):
                return self._begin(item)
            elif (update := self._fold(item)) is not None:
                return update

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
