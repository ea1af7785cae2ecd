"""What the users of a NatsPublisher wait for. Without I/O; in the loop's thread."""

import itertools
import math
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from fanline.nats.dial import ANSWER_SECONDS
from fanline.nats.jetstream import check_answer, find_stream
from fanline.nats.requests import NatsRequests
from fanline.producer.waiting import finish
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import Complaint, ServerInfo


class PendingAnswers:
    """The user of a NatsLoop that has one connection and no other after it. `stop` ends the loop, `tries` is how many
    servers are tried before that.
    """

    def __init__(self, requests: NatsRequests, stop: Callable[[], None], tries: int) -> None:
        self.opened: Future[ServerInfo] = Future()
        """What the server says about itself, once there is a connection."""
        self.failure: NatsError | None = None
        """Why the connection is lost."""
        self._requests = requests
        self._stop = stop
        self._tries = tries
        self._numbers = itertools.count(1)
        self._unacknowledged: dict[int, None] = {}  # numbers of messages, in the order of the calls
        self._flushes: dict[Future[None], int] = {}  # those that the server has processed -> the last number of each
        self._waiting: set[Future[Any]] = set()  # whatever else waits for an answer
        self._error: NatsError | None = None  # which the next flush raises
        self._heard = False  # an answer came since the last step
        self._heard_at = -math.inf

    # --- what is wanted ------------------------------------------------------------------------------------------

    def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None, *, stored: bool) -> None:
        if stored:
            number = next(self._numbers)
            self._unacknowledged[number] = None
            self._requests.ask(subject, payload, partial(self._take_ack, number), headers)
        else:
            self._requests.publish(subject, payload, headers)

    def find_stream(self, subject: str, found: Future[bool]) -> None:
        """Whether a stream stores a subject."""
        self._waiting.add(found)
        find_stream(self._requests, subject, partial(self._take_stream, found))

    def flush(self, flushed: Future[None]) -> None:
        """Wait until the server has processed everything so far, and what is to be stored is stored."""
        self._waiting.add(flushed)
        self._requests.confirm(partial(self._take_confirmation, flushed, next(self._numbers)))

    # --- for the loop --------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        self._tries = 0
        finish(self.opened, self._requests.info)

    def lost(self, why: str | None, now: float) -> None:
        self._tries -= 1
        if self._tries <= 0:
            self.failure = NatsError(why or "the NATS server is about to stop")
            self._stop()

    def denied(self, complaint: Complaint) -> None:
        self._fail(NatsError(complaint.text))

    def step(self, now: float) -> float:
        if self._heard or not (self._waiting or self._flushes):
            self._heard, self._heard_at = False, now
        if now >= self._heard_at + ANSWER_SECONDS:
            who = "JetStream" if self._unacknowledged else "the NATS server"
            self._fail(NatsError(f"{who} did not answer within {ANSWER_SECONDS:g} seconds"))
        return self._heard_at + ANSWER_SECONDS if self._waiting or self._flushes else math.inf

    # --- answers -------------------------------------------------------------------------------------------------

    def _take_ack(self, number: int, answer: NatsMessage) -> None:
        self._heard = True
        self._unacknowledged.pop(number, None)
        try:
            check_answer(answer.payload)
        except NatsError as error:
            self._error = self._error or error
        self._finish_flushes()

    def _take_stream(self, found: Future[bool], answer: bool | NatsError) -> None:
        self._heard = True
        self._waiting.discard(found)
        finish(found, answer)

    def _take_confirmation(self, flushed: Future[None], number: int, error: NatsError | None) -> None:
        self._heard = True
        if flushed in self._waiting:  # otherwise it has failed
            self._waiting.discard(flushed)
            self._error = self._error or error
            self._flushes[flushed] = number
            self._finish_flushes()

    def _finish_flushes(self) -> None:
        oldest = next(iter(self._unacknowledged), math.inf)
        for flushed, number in list(self._flushes.items()):
            if number < oldest or self._error is not None:
                del self._flushes[flushed]
                error, self._error = self._error, None
                finish(flushed, error)

    def _fail(self, error: NatsError) -> None:
        """Whatever waits gets the error; if nothing does, the next flush."""
        waiting = [*self._waiting, *self._flushes]
        self._waiting.clear()
        self._flushes.clear()
        self._unacknowledged.clear()
        self._error = None if waiting else error
        for future in waiting:
            finish(future, error)
