"""What viewers send to a task: calls, answers to its questions, requests to stop."""

import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from fanline.errors import FanlineError
from fanline.producer.checks import MAX_JSON_BYTES
from fanline.producer.values.json_value import json_value
from fanline.producer.values.text import text_of
from fanline.producer.waiting import CHECKPOINT, Checkpoint, finish, wait

_ENDED = "the task has ended"
_MAX_RECENT = 64
_log = logging.getLogger("fanline")

SendReply = Callable[[bytes], None]
"""Sends the one reply to a call; may be called from any thread."""


class TaskCancelled(FanlineError):  # noqa: N818  # reads as what happened
    """The task was asked to stop, by the user `by`. A job that ends because of such a request may raise it too."""

    def __init__(self, by: str | None = None) -> None:
        super().__init__(by)
        self.by = by

    def __str__(self) -> str:
        return f"the task was cancelled by {self.by}" if self.by else "the task was cancelled"


class TaskRetrying(FanlineError):  # noqa: N818  # reads as what happened
    """Raise this out of a task's block if the attempt has failed and another will follow: viewers see `retrying`.

    `delay`: seconds until then, if they are known. The reason is the exception's text, or its `__cause__`.
    """

    def __init__(self, reason: str | None = None, *, delay: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay

    def __str__(self) -> str:
        return self.reason or "the task will be tried again"


class AskExpired(FanlineError):  # noqa: N818  # reads as what happened
    """No viewer answered a question of the task in time."""


class Answer(NamedTuple):
    """A viewer's answer to a question: whether it was `approved`, the `value` that was chosen or entered, else True or
    False, and `by` whom, if the viewer has a name.
    """

    approved: bool
    """False if the viewer rejected it."""
    value: Any
    """The option that was chosen or the text that was entered; True or False if there was nothing to choose."""
    by: str | None
    """Who answered."""


class Call:
    """A viewer's call to the task. Answer or refuse it once, and soon: the viewer is waiting."""

    def __init__(self, verb: str, data: Any, by: str | None, reply: SendReply, call_id: str = "") -> None:
        self.id = call_id  # by which a repeat is recognized; "" if it is not repeated
        self.verb = verb
        self.data = data
        self.by = by
        self._lock = threading.RLock()
        self._waiting = [reply]
        self._reply: bytes | None = None

    @property
    def ask(self) -> str | None:
        """The question that it answers, which some other program of the task has asked; None if it answers none."""
        ask = self.data.get("ask") if isinstance(self.data, dict) else None
        return ask if isinstance(ask, str) else None

    def answer(self, data: Any = None) -> Checkpoint:
        """Tell the caller that the call was accepted or carried out. Data that JSON has no form for is converted, and
        what does not fit is cut, as in a task's result.
        """
        raw, loss = json_value(data, MAX_JSON_BYTES)
        if loss is not None:
            _log.warning("a part of the answer to the call `%s` is left out: %s", self.verb, loss)
        return self._send(ok_reply(raw))

    def refuse(self, text: str) -> Checkpoint:
        """Tell the caller why the call is refused."""
        return self._send(error_reply(text_of(text)))

    def absorb(self, repeat: "Call") -> None:
        """The same call has arrived once more: it gets the same reply, now or later."""
        with self._lock:
            if self._reply is None:
                self._waiting += repeat._waiting  # noqa: SLF001  # the same class
                return
        repeat._send(self._reply)  # noqa: SLF001  # the same class

    def __repr__(self) -> str:
        return f"Call(verb={self.verb!r}, data={self.data!r}, by={self.by!r})"

    def _send(self, payload: bytes) -> Checkpoint:
        with self._lock:
            if self._reply is not None:
                raise RuntimeError(f"the call `{self.verb}` has already been answered")
            self._reply = payload
            waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply(payload)
        return CHECKPOINT


def ok_reply(data: Any = None) -> bytes:
    fields = {"v": 1, "t": "ok"} | ({} if data is None else {"d": data})
    return msgspec.json.encode(fields)


def error_reply(text: str) -> bytes:
    return msgspec.json.encode({"v": 1, "t": "err", "d": {"code": "refused", "message": text}})


class CallQueue:
    """Calls that wait for the job to take them; safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: deque[Call] = deque()
        self._waiting: deque[Future[Call | None]] = deque()
        self._recent: deque[Call] = deque(maxlen=_MAX_RECENT)
        self._closed = False

    def put(self, call: Call) -> None:
        """Have the job take a call, unless it is a repeat."""
        with self._lock:
            known = next((each for each in self._recent if each.id == call.id), None) if call.id else None
            if known is not None:
                known.absorb(call)
                return
            self._recent.append(call)
            self._offer(call)

    def _offer(self, call: Call) -> None:
        with self._lock:
            while self._waiting:
                if finish(self._waiting.popleft(), call):
                    return
            if self._closed:
                call.refuse(_ENDED)
            else:
                self._calls.append(call)

    def put_back(self, call: Call) -> None:
        """Return a call to the head of the queue."""
        with self._lock:
            if self._waiting or self._closed:
                self._offer(call)
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
        """Accept no more calls, and refuse those that were not taken."""
        with self._lock:
            self._closed = True
            for call in self._calls:
                call.refuse(_ENDED)
            self._calls.clear()
            for future in self._waiting:
                finish(future, None)
            self._waiting.clear()


class SyncCalls(Iterator[Call]):
    """The calls in a queue, until it is closed."""

    def __init__(self, queue: CallQueue) -> None:
        self._queue = queue

    def __next__(self) -> Call:
        call = self._queue.next().result()
        if call is None:
            raise StopIteration
        return call


class AsyncCalls(AsyncIterator[Call]):
    """The same for coroutines. Not a generator: a loop that is left early would have to close it."""

    def __init__(self, queue: CallQueue) -> None:
        self._queue = queue

    async def __anext__(self) -> Call:
        future = self._queue.next()
        try:
            call = await wait(future)
        except BaseException:  # cancelled, perhaps just after a call has arrived: it goes to the next reader
            if not future.cancel() and not future.cancelled() and (missed := future.result()) is not None:
                self._queue.put_back(missed)
            raise
        if call is None:
            raise StopAsyncIteration
        return call
