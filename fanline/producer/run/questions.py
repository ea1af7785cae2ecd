"""The question that a job has put to its viewers, until it has the answer or no longer waits for it."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from fanline.producer.calls import Answer, AskExpired
from fanline.producer.waiting import finish
from fanline.protocol.tasks.events import AskKind

ASK_GRACE = 1.0
"""Seconds that an answer given just before the deadline may take to arrive."""


class OpenQuestion(NamedTuple):
    """A question that a viewer may answer."""

    id: str
    text: str
    kind: AskKind
    answer: Future[Answer]
    timer: threading.Timer | None

    def is_unseen(self, channel: str, why: str) -> str:
        """What to tell the person at the job, while no viewer can be reached."""
        answer = "--input TEXT" if self.kind is AskKind.INPUT else "--approve (or --reject)"
        return (
            f"waits for an answer to {self.text!r}, which no viewer can see: {why}. "
            f"Once a server runs, answer with `fanline tail {channel} {answer}`"
        )


def open_question(data: Mapping[str, Any], answer: Future[Answer]) -> OpenQuestion:
    """The question of an event's data; after its deadline, the answer expires."""
    ask_id, text, kind, deadline = data["ask"], data["text"], AskKind(data["kind"]), data.get("deadline")
    if deadline is None:
        return OpenQuestion(ask_id, text, kind, answer, None)
    expired = AskExpired(f"no viewer answered {text!r} in time")
    timer = threading.Timer(deadline + ASK_GRACE, finish, (answer, expired))
    timer.daemon = True
    timer.start()
    return OpenQuestion(ask_id, text, kind, answer, timer)


class JobQuestions:
    """Those of one run: at most one is open. `lock` is that of the run, and is reentrant."""

    def __init__(self, lock: threading.RLock) -> None:
        self.open: OpenQuestion | None = None
        self._lock = lock
        self._asked = set[str]()
        self._answered: str | None = None  # the last question of which the job has the answer

    def ask(self, data: Mapping[str, Any]) -> Future[Answer]:
        """The future answer to the question of an event's data. RuntimeError while another one is open."""
        answer: Future[Answer] = Future()
        with self._lock:
            if self.open is not None:
                raise RuntimeError("the task is already asking: one question at a time")
            self.open = open_question(data, answer)
            self._asked.add(self.open.id)
        return answer

    def has_asked(self, ask_id: object) -> bool:
        """Whether this run has put that question, rather than another program of the task."""
        return str(ask_id) in self._asked

    def stop_waiting(self, answer: Future[Answer]) -> bool:
        """The job no longer waits for the answer. Whether it has to go on without it."""
        with self._lock:
            if self.open is None:
                return False
            timer, self.open = self.open.timer, None
        if timer is not None:
            timer.cancel()
        unanswered = not answer.done() or answer.cancelled() or isinstance(answer.exception(), AskExpired)
        if unanswered:
            answer.cancel()
        return unanswered

    def take(self, ask_id: object, verb: str, data: Mapping[str, Any], by: str | None) -> str | None:
        """Take a viewer's answer. Returns why it is refused; None if the job has it, perhaps since it came before."""
        with self._lock:
            if self._answered == ask_id:
                return None
            if self.open is None or self.open.id != ask_id:
                return f"the task is not asking {ask_id!r}"
            future = self.open.answer
        approved = verb != "reject"
        if not finish(future, Answer(approved, data.get("value", approved), data.get("by") or by)):
            return "the task no longer waits for the answer"
        self._answered = str(ask_id)
        return None
