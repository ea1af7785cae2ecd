"""One run of a task, between its job and the exporter: thread-safe, does no I/O, never blocks.

The job adds events, the exporter takes those that are due, and the calls of viewers come the other way.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fanline.producer.calls import Answer, Call, CallQueue, SendReply, TaskCancelled, error_reply, ok_reply
from fanline.producer.checks import MAX_JSON_BYTES, TaskSettings, ask_data, progress_data
from fanline.producer.run.buffer import BufferedEvent, TaskBuffer
from fanline.producer.run.ending import final_event
from fanline.producer.run.questions import JobQuestions
from fanline.producer.sharing.handles import Handles
from fanline.producer.values.json_value import json_value
from fanline.producer.values.output_lines import lines_of, stream_of
from fanline.producer.values.text import text_of
from fanline.producer.waiting import finish
from fanline.protocol.tasks.events import MAX_RESULT_BYTES, TaskEvent

_KEPT = f"{MAX_RESULT_BYTES:,}"
_NEVER = float("inf")
_ANSWERS = ("approve", "reject", "input")
_CANCEL = "cancel"
_COPY = (
    "a forked process has only a copy of it, and what it reports is left out: "
    "pass it a handle, `task.handle()`, or the task itself through a pickle"
)
_log = logging.getLogger("fanline")


class Producer:
    """The state of one run of a task, shared by the job's SyncTask or AsyncTask and the exporter.

    `keep`: seconds after the end of the run for which what is not stored is kept, if the program goes on for so long;
    at least the time for which the task lingers.
    """

    def __init__(self, settings: TaskSettings, *, keep: float = 0.0) -> None:
        self.settings = settings
        self.keep = keep
        self.id = settings.id
        self.channel = settings.channel
        self.attempt = settings.attempt
        self.cancelled: TaskCancelled | None = None
        self.cancellation: type[TaskCancelled] = TaskCancelled
        """What a viewer's cancel raises in the job."""
        self.ended: float | None = None
        """Monotonic time at which the task ended."""
        self.settled: Future[None] = Future()
        """Done when the job need not wait any longer: everything is stored, or will not be soon."""
        self.thread = threading.current_thread()
        """The one in which the job began."""
        self._process = os.getpid()
        # Reentrant, since a signal handler or a finalizer may log while its own thread holds the lock.
        self._lock = threading.RLock()
        self._buffer = TaskBuffer()
        self._wake: Callable[[], None] = _nothing
        self._next_look = -_NEVER  # when the exporter looks into the buffer without being woken
        self._on_cancel: Callable[[], None] = _nothing
        self._cancellation_taken = False
        self._questions = JobQuestions(self._lock)
        self._calls = CallQueue() if settings.takes_calls else None
        self._result: Any = None
        self._complaints = set[str]()
        self._handles = Handles(lambda verb, arguments: getattr(self, verb)(*arguments), self.complain)
        keys = ("title", "kind", "fields", "heartbeat", "timeout")
        self._put(TaskEvent.STARTED, {key: value for key in keys if (value := getattr(settings, key)) is not None})

    # --- called by the job ---------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    def progress(self, percent: object, message: object, stage: object, done: object, total: object) -> None:
        self._add(self._buffer.add_progress, progress_data(percent, message, stage, done, total, self.complain))

    def log(self, text: object, stream: object) -> None:
        self._add(self._buffer.add_output, lines_of(text), stream_of(stream, self.complain))

    def pause(self, message: object) -> None:
        self._put(TaskEvent.PAUSED, {} if message is None else {"message": text_of(message)})

    def resume(self) -> None:
        self._put(TaskEvent.RESUMED, {})

    def set_result(self, value: Any, *, quietly: bool = False) -> None:
        """`quietly`: the job did not choose to report it, so there is no warning about what JSON cannot hold."""
        raw, loss = json_value(value, MAX_JSON_BYTES)
        if quietly:
            pass
        elif loss is not None:
            self.complain("result", f"a part of the result is left out: {loss}")
        elif len(raw) > MAX_RESULT_BYTES:
            self.complain("result", f"viewers who come later do not get the result: it is larger than {_KEPT} bytes")
        self._result = raw

    def complain(self, what: str, text: str) -> None:
        """Log, once, that something of what the job reports is lost."""
        if what not in self._complaints:
            self._complaints.add(what)
            _log.warning("task %s: %s", self.id, text)

    def end(self, error: BaseException | None) -> None:
        """Add the last event. Whatever is reported afterwards is ignored."""
        if self.is_copy:
            self.settled = Future()  # a thread of the parent may have held the lock of the other one
            self.settle()
            return
        self._handles.close()
        self._add(self._end, *final_event(error, self._result))
        if self._questions.open is not None:
            self._questions.open.answer.cancel()
        if self._calls is not None:
            self._calls.close()

    def abandon(self) -> None:
        """The program ends without having ended the task: send what is buffered, without a final event."""
        with self._lock:
            self.ended = self.ended or time.monotonic()

    @property
    def is_copy(self) -> bool:
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
        if self.is_copy:
            self.complain("copy", _COPY)
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

    def share(self) -> str:
        """The address at which other processes can report to this task; "" if they cannot."""
        if self.is_copy or self.ended is not None:
            return ""
        with self._lock:
            return self._handles.address()

    # --- questions and calls -------------------------------------------------------------------------------------

    def ask(self, text: str, kind: str, options: list[str] | None, deadline: float | None) -> Future[Answer]:
        """The future answer, or TaskCancelled or AskExpired. The caller must call `end_ask` afterwards."""
        if self.is_copy:
            raise RuntimeError(f"task {self.id} belongs to the process that this one was forked from")
        ask_id = secrets.token_hex(6)
        deadline = deadline if deadline is not None else self.settings.timeout  # after which no answer is accepted
        data = ask_data(ask_id, text, kind, options, deadline, self.complain)
        with self._lock:
            answer = self._questions.ask(data)
            if self.cancelled is not None and not self._cancellation_taken:
                finish(answer, self.cancelled)
        self._put(TaskEvent.ASKED, data)
        return answer

    def say_waiting(self, why: str) -> None:
        """Viewers cannot be reached: if the job waits for one of them, say so, once for each question."""
        question = self._questions.open
        if question is not None and not question.answer.done():
            self.complain(question.id, question.is_unseen(self.channel, why))

    def end_ask(self, answer: Future[Answer]) -> None:
        """The job no longer waits for the answer. If there was none, the task continues without it."""
        if self._questions.stop_waiting(answer):
            self.resume()

    def open_calls(self) -> CallQueue:
        """The queue to which calls go from now on, including `cancel`."""
        if self.is_copy:
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
        if ask_id is not None and not self._questions.has_asked(ask_id):
            # A question that another program of this task has asked: it hears the same call, and a reply of ours would
            # be taken for its own. So ours is silence, unless the job takes calls, and knows what to do.
            if self._calls is not None and self.ended is None:
                self._calls.put(Call(verb, data, by, reply, f"answer {ask_id}"))
        elif ask_id is not None:
            refusal = self._questions.take(ask_id, verb, fields, by)
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

    def _cancel(self, by: str | None) -> None:
        with self._lock:
            if self.cancelled is not None:
                return
            self.cancelled = self.cancellation(by)
            self._handles.cancel(by)
            question, cancel = self._questions.open, self._on_cancel
        if question is not None:
            finish(question.answer, self.cancelled)
        cancel()

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

    @property
    def size(self) -> int:
        """Bytes of all events, about."""
        with self._lock:
            return self._buffer.size

    def trim(self) -> int:
        """Drop all output, and the large values of the other events. Returns how many lines were dropped."""
        with self._lock:
            return self._buffer.trim()

    def settle(self) -> None:
        """Let the job go on, if it waits at the end of its block."""
        finish(self.settled, None)


def _nothing() -> None:
    pass
