"""One run of a task, between its job and the exporter: thread-safe, does no I/O, never blocks.

The job adds events, the exporter takes those that are due, and the calls of viewers come the other way.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from fanline.producer.buffer import BufferedEvent, TaskBuffer
from fanline.producer.calls import Answer, AskExpired, Call, CallQueue, SendReply, TaskCancelled, error_reply, ok_reply
from fanline.producer.checks import TaskSettings, ask_data, json_of, progress_data, short
from fanline.producer.ending import final_event
from fanline.producer.output_lines import lines_of
from fanline.producer.waiting import finish
from fanline.protocol.tasks.events import Stream, TaskEvent

ASK_GRACE = 1.0
"""Seconds that an answer given just before the deadline may take to arrive."""
_NEVER = float("inf")
_STREAMS = {str(stream): stream for stream in Stream}
_ANSWERS = ("approve", "reject", "input")
_CANCEL = "cancel"


class _OpenQuestion(NamedTuple):
    """A question that a viewer may answer."""

    id: str
    answer: Future[Answer]
    timer: threading.Timer | None


class Producer:
    """The state of one run of a task, shared by the job's SyncTask or AsyncTask and the exporter."""

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings
        self.id = settings.id
        self.channel = settings.channel
        self.attempt = settings.attempt
        self.cancelled: TaskCancelled | None = None
        self.ended: float | None = None
        """Monotonic time at which the task ended."""
        self.settled: Future[None] = Future()
        """Done when the job need not wait any longer: everything is stored, or will not be soon."""
        self._process = os.getpid()
        # Reentrant, since a signal handler or a finalizer may log while its own thread holds the lock.
        self._lock = threading.RLock()
        self._buffer = TaskBuffer()
        self._wake: Callable[[], None] = _nothing
        self._next_look = -_NEVER  # when the exporter looks into the buffer without being woken
        self._on_cancel: Callable[[], None] = _nothing
        self._cancellation_taken = False
        self._question: _OpenQuestion | None = None
        self._answered: str | None = None  # the last question of which the job has the answer
        self._calls: CallQueue | None = None
        self._result: Any = None
        keys = ("title", "kind", "fields", "heartbeat", "timeout")
        self._put(TaskEvent.STARTED, {key: value for key in keys if (value := getattr(settings, key)) is not None})

    # --- called by the job ---------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    def progress(
        self, percent: float | None, message: str | None, stage: str | None, done: float | None, total: float | None
    ) -> None:
        self._add(self._buffer.add_progress, progress_data(percent, message, stage, done, total))

    def log(self, text: str | bytes, stream: str) -> None:
        self._add(self._buffer.add_output, lines_of(text), _stream(stream))

    def pause(self, message: str | None) -> None:
        self._put(TaskEvent.PAUSED, {} if message is None else {"message": short("message", message)})

    def resume(self) -> None:
        self._put(TaskEvent.RESUMED, {})

    def set_result(self, value: Any) -> None:
        self._result = json_of(value, "the result")

    def end(self, error: BaseException | None) -> None:
        """Add the last event. Whatever is reported afterwards is ignored."""
        if self._is_copy:
            self.settled = Future()  # a thread of the parent may have held the lock of the other one
            self.settle()
            return
        self._add(self._end, *final_event(error, self._result))
        if self._question is not None:
            self._question.answer.cancel()
        if self._calls is not None:
            self._calls.close()

    def abandon(self) -> None:
        """The program ends without having ended the task: send what is buffered, without a final event."""
        with self._lock:
            self.ended = self.ended or time.monotonic()

    @property
    def _is_copy(self) -> bool:
        """Whether this is a forked process's copy of a task that belongs to the parent: nothing of it is sent, and its
        locks may be held for ever.
        """
        return os.getpid() != self._process

    def _end(self, event: TaskEvent, data: dict[str, Any], now: float) -> None:
        self._buffer.add_state(event, data, now)
        self.ended = now

    def _put(self, event: TaskEvent, data: dict[str, Any]) -> None:
        self._add(self._buffer.add_state, event, data)

    def _add(self, add: Callable[..., None], *arguments: Any) -> None:
        """Call `add` to buffer something, and wake the exporter if it would look too late."""
        if self._is_copy:
            return
        with self._lock:
            if self.ended is not None:
                return
            add(*arguments, time.monotonic())
            too_late = self._next_look > self._buffer.due
            if too_late:
                self._next_look = -_NEVER
        if too_late or self.ended is not None:
            self._wake()

    # --- questions and calls -------------------------------------------------------------------------------------

    def ask(self, text: str, kind: str, options: list[str] | None, deadline: float | None) -> Future[Answer]:
        """The future answer, or TaskCancelled or AskExpired. The caller must call `end_ask` afterwards."""
        if self._is_copy:
            raise RuntimeError(f"task {self.id} belongs to the process that this one was forked from")
        ask_id = secrets.token_hex(6)
        deadline = deadline if deadline is not None else self.settings.timeout  # after which no answer is accepted
        data = ask_data(ask_id, text, kind, options, deadline)
        answer = self._open_question(ask_id, text, deadline)
        self._put(TaskEvent.ASKED, data)
        return answer

    def end_ask(self, answer: Future[Answer]) -> None:
        """The job no longer waits for the answer. If there was none, the task continues without it."""
        with self._lock:
            if self._question is None:
                return
            timer, self._question = self._question.timer, None
        if timer is not None:
            timer.cancel()
        if not answer.done() or answer.cancelled() or isinstance(answer.exception(), AskExpired):
            answer.cancel()
            self.resume()

    def open_calls(self) -> CallQueue:
        """The queue to which calls go from now on, including `cancel`."""
        if self._is_copy:
            queue = CallQueue()
            queue.close()
            return queue
        with self._lock:
            if self._calls is None:
                self._calls = CallQueue()
                if self.ended is not None:
                    self._calls.close()
            return self._calls

    def handle_call(self, verb: str, data: Any, by: str | None, reply: SendReply, call_id: str = "") -> None:
        """Handle a viewer's call; its answer is sent with `reply`, now or later. An answer and a `cancel` may come
        repeatedly.
        """
        fields = data if isinstance(data, dict) else {}
        ask_id = fields.get("ask") if verb in _ANSWERS else None
        if ask_id is not None:
            refusal = self._take_answer(ask_id, verb, fields, by)
            reply(ok_reply() if refusal is None else error_reply(refusal))
        elif verb == _CANCEL and fields.get("attempt", self.attempt) != self.attempt:
            return  # another run is asked to stop, whose producer may be attached, too
        elif self.ended is not None:
            reply(error_reply("the task has ended"))
        elif self._calls is not None:
            self._calls.put(Call(verb, data, by, reply, call_id if verb == _CANCEL else ""))
        elif verb == _CANCEL:
            reply(ok_reply())
            self._cancel(by)
        else:
            reply(error_reply(f"this task does not support `{verb}`"))

    def on_cancel(self, cancel: Callable[[], None]) -> None:
        """Set what is called when a viewer cancels the task; it is called now if one has already done so."""
        with self._lock:
            self._on_cancel = cancel
            already = self.cancelled is not None
        if already:
            cancel()

    def take_cancellation(self) -> TaskCancelled | None:
        """The cancellation, if there is one, and only once."""
        if self.cancelled is None or self._cancellation_taken:
            return None
        self._cancellation_taken = True
        return self.cancelled

    def _open_question(self, ask_id: str, text: str, deadline: float | None) -> Future[Answer]:
        answer: Future[Answer] = Future()
        with self._lock:
            if self._question is not None:
                raise RuntimeError(f"task {self.id} is already asking: one question at a time")
            timer = None if deadline is None else _expire_after(deadline + ASK_GRACE, answer, text)
            self._question = _OpenQuestion(ask_id, answer, timer)
            if self.cancelled is not None and not self._cancellation_taken:
                finish(answer, self.cancelled)
        return answer

    def _cancel(self, by: str | None) -> None:
        with self._lock:
            if self.cancelled is not None:
                return
            self.cancelled = TaskCancelled(by)
            question, cancel = self._question, self._on_cancel
        if question is not None:
            finish(question.answer, self.cancelled)
        cancel()

    def _take_answer(self, ask_id: object, verb: str, data: dict[str, Any], by: str | None) -> str | None:
        """Take a viewer's answer. Returns why it is refused; None if the job has it, perhaps since it came before."""
        with self._lock:
            if self._answered == ask_id:
                return None
            if self._question is None or self._question.id != ask_id:
                return f"the task is not asking {ask_id!r}"
            future = self._question.answer
        approved = verb != "reject"
        answer = Answer(approved, data.get("value", approved), data.get("by") or by)
        if not finish(future, answer):
            return "the task no longer waits for the answer"
        self._answered = str(ask_id)
        return None

    # --- called by the exporter ----------------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None]) -> None:
        """Set what is called, from any thread, when an event is due before the exporter's next look."""
        self._wake = wake

    def take(self, now: float, room: int, *, only_output: bool = False) -> list[BufferedEvent]:
        """Remove and return the due events, at most `room`; with `only_output`, up to the first other event."""
        with self._lock:
            events = self._buffer.take(now, room, only_output=only_output)
            held_back = not room or (only_output and self._buffer.output_due > self._buffer.due)
            self._next_look = -_NEVER if events or held_back else self._buffer.due
            return events

    @property
    def due(self) -> float:
        """Monotonic time from which `take` returns an event; infinity if the buffer is empty."""
        with self._lock:
            return self._buffer.due

    @property
    def output_due(self) -> float:
        """The same with `only_output`; infinity, too, while another event comes first."""
        with self._lock:
            return self._buffer.output_due

    def discard(self) -> list[BufferedEvent]:
        """Remove and return all events. Their output counts as dropped."""
        with self._lock:
            return self._buffer.discard()

    def settle(self) -> None:
        """Let the job go on, if it waits at the end of its block."""
        finish(self.settled, None)


def _expire_after(seconds: float, answer: Future[Answer], text: str) -> threading.Timer:
    """A running timer that ends the wait for an answer."""
    timer = threading.Timer(seconds, finish, (answer, AskExpired(f"no viewer answered {text!r} in time")))
    timer.daemon = True
    timer.start()
    return timer


def _stream(name: str) -> Stream:
    if name not in _STREAMS:
        raise ValueError(f"stream: {name!r} is not one of {', '.join(Stream)}")
    return _STREAMS[name]


def _nothing() -> None:
    pass
