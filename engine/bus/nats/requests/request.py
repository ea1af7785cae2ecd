"""One request on NATS, which collects its replies, and the attempts at a question that is asked again."""

from collections.abc import Sequence

import trio

from fanline.engine.bus.errors import BusError, LateError
from fanline.engine.bus.nats.jetstream import NoJetStreamError
from fanline.protocol.nats.parser import NatsMessage


class NatsRequest:
    """A request under way. It gets `most` replies, or fewer of which the last has a status."""

    __slots__ = ("done", "failure", "is_done", "most", "replies", "subject")

    def __init__(self, subject: str, most: float, done: trio.Event | None) -> None:
        self.subject = subject
        self.most = most
        self.replies: list[NatsMessage] = []
        self.failure: BusError | None = None
        self.is_done = False
        self.done = trio.Event() if done is None else done
        """Shared by the attempts at one question."""

    def take(self, reply: NatsMessage) -> None:
        if self.is_done:
            return  # a second answer to the same request
        self.replies.append(reply)
        if len(self.replies) >= self.most or reply.status is not None:
            self._finish()

    @property
    def status(self) -> int | None:
        """Status of the newest reply, if it has one; 503 comes from the server itself: no client listens there."""
        return self.replies[-1].status if self.replies else None

    def fail(self, error: BusError) -> None:
        """No more replies will come. Part of an answer is dropped: what is missing would seem not to exist."""
        if not self.is_done:
            self.replies.clear()
            self.failure = error
            self._finish()

    def _finish(self) -> None:
        self.is_done = True
        self.done.set()

    async def wait(self, seconds: float, late: str) -> None:
        """Wait for the replies. BusError, with the sentence `late` if none comes for `seconds` seconds."""
        if await first_done([self], seconds) is None:
            raise LateError(late)
        if self.failure is not None:
            raise self.failure

    def all_replies(self) -> list[NatsMessage]:
        """The replies to a request to JetStream that is done. BusError."""
        if self.failure is not None:
            raise self.failure
        if self.status == 503:
            raise NoJetStreamError("JetStream is not there; nothing was done")
        return self.replies


async def first_done(attempts: Sequence[NatsRequest], seconds: float) -> NatsRequest | None:
    """The attempt at a question that is done first; None if no reply to any of them comes for `seconds` seconds."""
    done, count = attempts[0].done, -1
    while not done.is_set() and (replies := sum(len(attempt.replies) for attempt in attempts)) > count:
        count = replies
        with trio.move_on_after(seconds):
            await done.wait()
    return next((attempt for attempt in attempts if attempt.is_done), None)
