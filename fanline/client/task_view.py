"""A task as a viewer sees it, as an async iterator of its updates that lives in an `async with` block."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from fanline.client.message import Gap, Message
from fanline.client.subscription import Subscription
from fanline.client.task_events import TaskUpdate
from fanline.client.watched_task import WatchedTask

SendVerb = Callable[[str, Any], Awaitable[Any]]
"""Sends a verb with its data to the task; returns the producer's answer."""


class TaskView(WatchedTask):
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
        self, messages: Subscription[Message | Gap], call: SendVerb, lines: int, *, follow: bool, by: str | None
    ) -> None:
        super().__init__(messages.channels[0], lines, follow=follow, by=by)
        self._messages = messages
        self._call = call

    async def __aenter__(self) -> Self:
        await self._messages.__aenter__()
        try:
            self._join(await self._next_update())
        except BaseException:
            await self._messages.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._messages.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TaskUpdate:
        if self._is_over:
            raise StopAsyncIteration
        return await self._next_update()

    async def _next_update(self) -> TaskUpdate:
        while (update := self._take(await anext(self._messages))) is None:
            pass
        return update

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
        return await self._call(*self._cancel(deadline, force=force))

    async def send_input(self, value: Any, ask: str | None = None) -> Any:
        """Answer a question with any value: by default the open one, if it wants more than yes or no. Without one it is
        unsolicited input, such as a line for the stdin of `fanline run`.
        """
        return await self._call(*self._send_input(value, ask))

    async def approve(self, ask: str | None = None, value: Any = None) -> Any:
        """Answer yes to a question, by default the open one; `value` chooses one of its options."""
        return await self._call(*self._approve(ask, value))

    async def reject(self, ask: str | None = None) -> Any:
        """Answer no to a question, by default the open one."""
        return await self._call(*self._reject(ask))
