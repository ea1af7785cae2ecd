"""The thread through which the server asks a program, and tells it of events: one per process, with a connection of its
own to NATS, as the engine, since producers reach none of these subjects.
"""

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from fanline.errors import FanlineError
from fanline.nats.loop import NatsLoop
from fanline.nats.settings import find_engine_options
from fanline.nats.thread import NatsThread, lock
from fanline.producer.waiting import finish
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import Complaint

Take = Callable[[NatsMessage], "Future[bytes] | None"]
"""Called in the thread with whatever comes; must not block or raise. The answer, if there will be one."""

EXIT_SECONDS = 0.5
_log = logging.getLogger("fanline")


class NotAttached(FanlineError):  # noqa: N818  # reads as what happened
    """The server cannot ask this program, nor tell it of events; str() says why."""


class Attachment:
    """The user of a NatsLoop. In the loop's thread, but for `attached`."""

    def __init__(self, loop: NatsLoop) -> None:
        self.attached: Future[None] = Future()
        """Done when the server can ask this program for the first time; NotAttached if NATS does not permit it."""
        self.attached.set_running_or_notify_cancel()  # a caller that stops waiting does not cancel it
        self._loop = loop
        self._warned = False

    def listen(self, subject: str, queue: str, take: Take) -> None:
        """Of all programs of one `queue`, one gets each message."""
        self._loop.requests.subscribe(subject, partial(self._take, take), queue)

    def _take(self, take: Take, message: NatsMessage) -> None:
        answer = take(message)
        if answer is not None and message.reply:
            answer.add_done_callback(partial(self._reply, message.reply))

    def _reply(self, reply: str, answer: "Future[bytes]") -> None:
        """In any thread."""
        self._loop.call_soon(self._loop.requests.publish, reply, answer.result())

    # --- for the loop --------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        self._loop.requests.confirm(self._confirmed)

    def _confirmed(self, error: NatsError | None) -> None:
        if error is None and finish(self.attached, None):
            _log.info("the server can ask this program")
        elif error is None and self._warned:
            _log.info("the server can ask this program again")
        self._warned = self._warned and error is not None

    def lost(self, why: str | None, now: float) -> None:
        if why is not None and not self._warned:
            self._warned = True
            _log.warning("the server cannot ask this program, nor tell it of events: %s", why)

    def denied(self, complaint: Complaint) -> None:
        text = f"{complaint.text}; this needs the engine's login (fanline nats-url --engine)"
        if not finish(self.attached, NotAttached(text)):
            _log.error("%s", text)

    def step(self, now: float) -> float:
        return math.inf


class AnsweringThread(NatsThread):
    """Stays connected until the program ends, or `stop`."""

    name = "fanline answers"
    work = "the answers of this program"

    def __init__(self, nats: NatsOptions | None) -> None:
        super().__init__(nats)
        self.user = self.attachment = Attachment(self.loop)
        self.find: Callable[[], NatsOptions] = find_engine_options
        """Where NATS is, with the engine's login. FanlineError if that is not known now."""

    @classmethod
    def begin(cls, find: Callable[[], NatsOptions], subjects: Mapping[tuple[str, str], Take]) -> "AnsweringThread":
        """That of this process, which listens to these subjects: (subject, queue) -> what takes it."""
        with lock():
            thread = cls.current(None)
        thread.find = find
        for (subject, queue), take in subjects.items():
            thread.listen(subject, queue, take)
        thread.start()
        return thread

    def listen(self, subject: str, queue: str, take: Take) -> None:
        """In any thread, soon."""
        self.loop.call_soon(self.attachment.listen, subject, queue, take)

    def publish(self, subject: str, payload: bytes) -> None:
        """In any thread, soon; lost while NATS is away."""
        self.loop.call_soon(self.loop.requests.publish, subject, payload)

    def stop(self) -> None:
        with lock():
            self.unregister()
        self.loop.call_soon(self.loop.stop)

    def find_options(self) -> NatsOptions:
        return self.find()

    def finishing(self) -> float:
        """A moment for the answers that are under way."""
        self.loop.call_soon(self.loop.stop)
        return EXIT_SECONDS

    def ended(self) -> None:
        finish(self.attachment.attached, NotAttached("the program ends"))
