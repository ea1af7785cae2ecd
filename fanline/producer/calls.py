"""What viewers say to a task: calls, answers to its questions, the wish that it stops."""

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from fanline.errors import FanlineError
from fanline.producer.checks import json_of
from fanline.producer.waiting import CHECKPOINT, Checkpoint, finish, wait

_ENDED = "the task has ended"

Reply = Callable[[bytes], None]
"""Sends the one answer to a call; from any thread."""


class TaskCancelled(FanlineError):  # noqa: N818  # reads as what happened
    """The task was asked to stop. `by`: who asked. To be raised by a job, too, that ends because of such a call."""

    def __init__(self, by: str | None = None) -> None:
        super().__init__(by)
        self.by = by

    def __str__(self) -> str:
        return f"the task was cancelled by {self.by or 'somebody'}"


class AskExpired(FanlineError):  # noqa: N818  # reads as what happened
    """Nobody answered a question of the task in time."""


class Answer(NamedTuple):
    """What a viewer said to a question."""

    approved: bool
    """False if it was rejected."""
    value: Any
    """The option or the input; True or False if there was nothing to choose."""
    by: str | None
    """Who answered."""


class Call:
    """A call of a viewer to the task: answer or refuse it, once, and soon: somebody waits."""

    def __init__(self, verb: str, data: Any, by: str | None, reply: Reply) -> None:
        self.verb = verb
        self.data = data
        self.by = by
        self._reply: Reply | None = reply

    def answer(self, data: Any = None) -> Checkpoint:
        """Tell the caller that it is done, or accepted. Raises TypeError or ValueError if JSON cannot hold `data`."""
        return self._send(ok_reply(json_of(data, "an answer")))

    def refuse(self, text: str) -> Checkpoint:
        """Tell the caller why not."""
        return self._send(error_reply(text))

    def __repr__(self) -> str:
        return f"Call(verb={self.verb!r}, data={self.data!r}, by={self.by!r})"

    def _send(self, payload: bytes) -> Checkpoint:
        if self._reply is None:
            raise RuntimeError(f"the call `{self.verb}` is already answered")
        reply, self._reply = self._reply, None
        reply(payload)
        return CHECKPOINT


def ok_reply(data: Any = None) -> bytes:
    fields = {"v": 1, "t": "ok"} | ({} if data is None else {"d": data})
    return msgspec.json.encode(fields)


def error_reply(text: str) -> bytes:
    return msgspec.json.encode({"v": 1, "t": "err", "d": {"code": "refused", "message": text}})


class Mailbox:
    """Calls on their way to whoever iterates over them; for any threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: deque[Call] = deque()
        self._waiting: deque[Future[Call | None]] = deque()
        self._closed = False

    def put(self, call: Call) -> None:
        with self._lock:
            while self._waiting:
                if finish(self._waiting.popleft(), call):
                    return
            if self._closed:
                call.refuse(_ENDED)
            else:
                self._calls.append(call)

    def put_back(self, call: Call) -> None:
        with self._lock:
            if self._waiting or self._closed:
                self.put(call)
            else:
                self._calls.appendleft(call)

    def next(self) -> Future[Call | None]:
        """The next call; None when there will be no more."""
        future: Future[Call | None] = Future()
        with self._lock:
            if self._calls:
                future.set_result(self._calls.popleft())
            elif self._closed:
                future.set_result(None)
            else:
                self._waiting.append(future)
        return future

    def close(self) -> None:
        """No more calls; those that nobody took are refused."""
        with self._lock:
            self._closed = True
            for call in self._calls:
                call.refuse(_ENDED)
            self._calls.clear()
            for future in self._waiting:
                finish(future, None)
            self._waiting.clear()


class SyncCalls(Iterator[Call]):
    """The calls of a mailbox until it is closed."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def __next__(self) -> Call:
        call = self._mailbox.next().result()
        if call is None:
            raise StopIteration
        return call


class AsyncCalls(AsyncIterator[Call]):
    """The same for coroutines. No generator, which whoever leaves the loop early would have to close."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def __anext__(self) -> Call:
        future = self._mailbox.next()
        try:
            call = await wait(future)
        except BaseException:  # cancelled, maybe just after a call has come: it is for whoever asks next
            if not future.cancel() and not future.cancelled() and (missed := future.result()) is not None:
                self._mailbox.put_back(missed)
            raise
        if call is None:
            raise StopAsyncIteration
        return call
