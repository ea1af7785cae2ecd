"""A task as a viewer sees it, for plain code: an iterator of its updates that lives in a `with` block."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from fanline.client.message import Gap, Message
from fanline.client.plain.subscription import PlainSubscription
from fanline.client.task_events import TaskUpdate
from fanline.client.watched_task import WatchedTask

SendVerbPlainly = Callable[[str, Any, float | None], Any]
"""Sends a verb with its data to the task; returns the producer's answer, if there is one within the timeout."""


class PlainTaskView(WatchedTask):
    """Created by `PlainClient.task`: what TaskView is, for `with` and `for`. It says what is promised. `timeout` is in
    seconds; after it there is a TimeoutError, and what was asked may have been done.
    """

    def __init__(
        self,
        messages: PlainSubscription[Message | Gap],
        call: SendVerbPlainly,
        lines: int,
        *,
        follow: bool,
        by: str | None,
        timeout: float | None,
    ) -> None:
        super().__init__(messages.channels[0], lines, follow=follow, by=by)
        self._messages = messages
        self._call = call
        self._timeout = timeout

    def __enter__(self) -> Self:
        self._messages.__enter__()
        try:
            self._join(self._next_update(self._timeout))
        except BaseException:
            self._messages.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._messages.__exit__(kind, error, traceback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TaskUpdate:
        if self._is_over:
            raise StopIteration
        return self._next_update(None)

    def receive(self, timeout: float | None = None) -> TaskUpdate | None:
        """The next update; None if the task has ended. Raises TimeoutError if none comes within `timeout` seconds, and
        what ends the iterator.
        """
        return None if self._is_over else self._next_update(timeout)

    def _next_update(self, timeout: float | None) -> TaskUpdate:
        return self._messages._receive_first(self._take, timeout)  # noqa: SLF001  # no method for users

    # --- upstream -----------------------------------------------------------------------------------------------

    def call(self, verb: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Send a verb that the producer itself defines; returns its answer. TypeError or ValueError for data that JSON
        and CBOR cannot hold.
        """
        return self._call(verb, data, timeout)

    def cancel(self, deadline: float | None = None, *, force: bool = False, timeout: float | None = None) -> Any:
        """Ask the task to stop. After `deadline` seconds (by default the server's setting) it is ended by force; with
        `force` at once if no producer is attached that could stop it.

        Returns when the producer has accepted, which is before the end; ServerError "refused" if it has not.
        """
        return self._call(*self._cancel(deadline, force=force), timeout)

    def send_input(self, value: Any, ask: str | None = None, *, timeout: float | None = None) -> Any:
        """Answer a question with any value: by default the open one, if it wants more than yes or no. Without one it is
        unsolicited input, such as a line for the stdin of `fanline run`.
        """
        return self._call(*self._send_input(value, ask), timeout)

    def approve(self, ask: str | None = None, value: Any = None, *, timeout: float | None = None) -> Any:
        """Answer yes to a question, by default the open one; `value` chooses one of its options."""
        return self._call(*self._approve(ask, value), timeout)

    def reject(self, ask: str | None = None, *, timeout: float | None = None) -> Any:
        """Answer no to a question, by default the open one."""
        return self._call(*self._reject(ask), timeout)
