"""A running task between its job and the courier: thread-safe, never waits, does no I/O.

The job puts in what happens, the courier takes out what is due, and calls of viewers come the other way.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fanline.errors import FanlineError
from fanline.groups import first_error
from fanline.producer.buffer import Message, TaskBuffer
from fanline.producer.calls import Answer, AskExpired, Call, Mailbox, Reply, TaskCancelled, error_reply, ok_reply
from fanline.producer.checks import TaskSettings, ask_data, json_of, progress_data, short
from fanline.producer.output_lines import lines_of
from fanline.producer.waiting import finish, is_cancellation
from fanline.protocol.tasks.events import Stream, TaskEvent

ASK_GRACE = 1.0
"""Seconds that an answer given just in time may take to get here."""
_NEVER = float("inf")
_STREAMS = {str(stream): stream for stream in Stream}
_ANSWERS = ("approve", "reject", "input")


class Producer:
    """What the job's face and the courier share of one run of a task."""

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings
        self.id = settings.id
        self.channel = settings.channel
        self.attempt = settings.attempt
        self.cancelled: TaskCancelled | None = None
        self.ended: float | None = None
        """Monotonic time of its end."""
        self.settled: Future[None] = Future()
        self._process = os.getpid()
        # Reentrant, since a signal handler or a finalizer may log while its own thread is in here.
        self._lock = threading.RLock()
        self._buffer = TaskBuffer()
        self._wake: Callable[[], None] = _nothing
        self._looks_again = -_NEVER  # the courier will look by itself at this time
        self._on_cancel: Callable[[], None] = _nothing
        self._cancellation_told = False
        self._ask: tuple[str, Future[Answer], threading.Timer | None] | None = None
        self._mailbox: Mailbox | None = None
        self._result: Any = None
        keys = ("title", "kind", "heartbeat", "timeout")
        self._put(TaskEvent.STARTED, {key: value for key in keys if (value := getattr(settings, key)) is not None})

    # --- what the job says ---------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    def progress(
        self, percent: float | None, message: str | None, stage: str | None, done: float | None, total: float | None
    ) -> None:
        self._say(self._buffer.add_progress, progress_data(percent, message, stage, done, total))

    def log(self, text: str | bytes, stream: str) -> None:
        self._say(self._buffer.add_output, lines_of(text), _stream(stream))

    def pause(self, message: str | None) -> None:
        self._put(TaskEvent.PAUSED, {} if message is None else {"message": short("message", message)})

    def resume(self) -> None:
        self._put(TaskEvent.RESUMED, {})

    def set_result(self, value: Any) -> None:
        self._result = json_of(value, "the result")

    def end(self, error: BaseException | None) -> None:
        """The last event; whatever is said after it is left out."""
        self._say(self._end, *self._last_words(error))
        if os.getpid() != self._process:
            self.settle()
        if self._ask is not None:
            self._ask[1].cancel()
        if self._mailbox is not None:
            self._mailbox.close()

    def abandon(self) -> None:
        """The program ends without having ended the task: send what there is, and tell no end."""
        with self._lock:
            self.ended = self.ended or time.monotonic()

    def _last_words(self, error: BaseException | None) -> tuple[TaskEvent, dict[str, Any]]:
        result = {} if self._result is None else {"result": self._result}
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            return TaskEvent.COMPLETED, result
        if isinstance(error, BaseExceptionGroup) and error.split(TaskCancelled)[1] is None:
            error = first_error(error)
        if isinstance(error, TaskCancelled):
            return TaskEvent.CANCELLED, {} if error.by is None else {"by": short("by", error.by, 256)}
        if is_cancellation(error):
            return TaskEvent.CANCELLED, {}
        return TaskEvent.FAILED, {"error": short("error", _text_of(error)), **result}

    def _end(self, event: TaskEvent, data: dict[str, Any], now: float) -> None:
        self._buffer.add_state(event, data, now)
        self.ended = now

    def _put(self, event: TaskEvent, data: dict[str, Any]) -> None:
        self._say(self._buffer.add_state, event, data)

    def _say(self, add: Callable[..., None], *what: Any) -> None:
        """Put something in the buffer, and wake the courier if it would look too late.

        A forked copy of the task is mute: what it says would be another's, and nobody sends it.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            if self.ended is not None:
                return
            add(*what, time.monotonic())
            early = self._looks_again > self._buffer.due
            if early:
                self._looks_again = -_NEVER
        if early or self.ended is not None:
            self._wake()

    # --- questions and calls -------------------------------------------------------------------------------------

    def ask(self, text: str, kind: str, options: list[str] | None, deadline: float | None) -> Future[Answer]:
        """The answer to come; TaskCancelled and AskExpired end it, too. `end_ask` must follow."""
        if os.getpid() != self._process:
            raise RuntimeError(f"task {self.id} belongs to the process that this one was forked from")
        ask_id = secrets.token_hex(6)
        deadline = deadline if deadline is not None else self.settings.timeout  # after which nobody can answer
        data = ask_data(ask_id, text, kind, options, deadline)
        answer: Future[Answer] = Future()
        with self._lock:
            if self._ask is not None:
                raise RuntimeError(f"task {self.id} asks already: one question at a time")
            timer = None if deadline is None else _timer(deadline + ASK_GRACE, answer, text)
            self._ask = (ask_id, answer, timer)
            if self.cancelled is not None and not self._cancellation_told:
                finish(answer, self.cancelled)
        self._put(TaskEvent.ASKED, data)
        return answer

    def end_ask(self, answer: Future[Answer]) -> None:
        """Nobody waits for the answer any longer. If there was none, the task goes on without."""
        with self._lock:
            if self._ask is None:
                return
            timer, self._ask = self._ask[2], None
        if timer is not None:
            timer.cancel()
        if not answer.done() or answer.cancelled() or isinstance(answer.exception(), AskExpired):
            answer.cancel()
            self.resume()

    def open_mailbox(self) -> Mailbox:
        """Where calls go from now on, cancel included."""
        with self._lock:
            if self._mailbox is None:
                self._mailbox = Mailbox()
                if self.ended is not None:
                    self._mailbox.close()
            return self._mailbox

    def hear(self, verb: str, data: Any, by: str | None, reply: Reply) -> None:
        """A call of a viewer; `reply` sends its answer."""
        answers = data.get("ask") if isinstance(data, dict) and verb in _ANSWERS else None
        if answers is not None:
            refusal = self._take_answer(answers, verb, data, by)
            reply(ok_reply() if refusal is None else error_reply(refusal))
        elif self.ended is not None:
            reply(error_reply("the task has ended"))
        elif self._mailbox is not None:
            self._mailbox.put(Call(verb, data, by, reply))
        elif verb == "cancel":
            reply(ok_reply())
            self._cancel(by)
        else:
            reply(error_reply(f"this task takes no `{verb}`"))

    def on_cancel(self, cancel: Callable[[], None]) -> None:
        """What to do when a viewer cancels the task."""
        with self._lock:
            self._on_cancel = cancel
            too_late = self.cancelled is not None
        if too_late:
            cancel()

    def take_cancellation(self) -> TaskCancelled | None:
        """The cancellation, if there is one that was not taken before."""
        if self.cancelled is None or self._cancellation_told:
            return None
        self._cancellation_told = True
        return self.cancelled

    def _cancel(self, by: str | None) -> None:
        with self._lock:
            if self.cancelled is not None:
                return
            self.cancelled = TaskCancelled(by)
            ask, cancel = self._ask, self._on_cancel
        if ask is not None:
            finish(ask[1], self.cancelled)
        cancel()

    def _take_answer(self, ask_id: object, verb: str, data: dict[str, Any], by: str | None) -> str | None:
        """Why the answer is refused, None if it is taken."""
        with self._lock:
            if self._ask is None or self._ask[0] != ask_id:
                return f"the task does not ask {ask_id!r}"
            future = self._ask[1]
        approved = verb != "reject"
        answer = Answer(approved, data.get("value", approved), data.get("by") or by)
        return None if finish(future, answer) else "nobody waits for the answer any longer"

    # --- the courier's side --------------------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None]) -> None:
        """`wake` is called, from any thread, when there is something to send sooner than the courier looks again."""
        self._wake = wake

    def take(self, now: float, room: int) -> list[Message]:
        """At most `room` messages that are due."""
        with self._lock:
            messages = self._buffer.take(now, room)
            self._looks_again = -_NEVER if messages or not room else self._buffer.due
            return messages

    @property
    def due(self) -> float:
        """Monotonic time at which there is something to take; infinity if the buffer is empty."""
        with self._lock:
            return self._buffer.due

    def give_up(self) -> tuple[int, int]:
        """Throw away what is buffered: (events, output lines)."""
        with self._lock:
            return self._buffer.give_up()

    def settle(self) -> None:
        """Whoever leaves the block need not wait any longer."""
        finish(self.settled, None)


def _timer(seconds: float, answer: Future[Answer], text: str) -> threading.Timer:
    """Ends the wait for an answer."""

    timer = threading.Timer(seconds, finish, (answer, AskExpired(f"nobody answered {text!r} in time")))
    timer.daemon = True
    timer.start()
    return timer


def _stream(name: str) -> Stream:
    if name not in _STREAMS:
        raise ValueError(f"stream: {name!r} is none of {', '.join(Stream)}")
    return _STREAMS[name]


def _nothing() -> None:
    pass


def _text_of(error: BaseException) -> str:
    """Our own errors are sentences; of others the kind says more than the text, which may itself fail. Of a group it is
    the first.
    """
    if isinstance(error, BaseExceptionGroup):
        error = first_error(error)
    try:
        return str(error) if isinstance(error, FanlineError) else f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001  # a broken __str__
        return type(error).__name__
