"""Requests on NATS, to JetStream and to other programs, with all replies over one inbox.

A request is queued like any other message; its replies are taken synchronously from the reading task and matched by the
last token of their subject, so that all requests together need one subscription.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import trio

from fanline.engine.bus.errors import BusError, ConflictError, LateError, StorageFullError
from fanline.engine.bus.nats.jetstream import JetStreamError, api_reply
from fanline.engine.bus.nats.requests.full_store import FullStore
from fanline.engine.bus.nats.requests.request import NatsRequest, first_done
from fanline.engine.bus.stored import StoreAck
from fanline.protocol.nats.parser import NatsMessage, header_of

REQUEST_TIMEOUT = 5.0
"""Seconds in which JetStream has to answer."""
QUESTION_SECONDS = 0.5
"""A question that changes nothing is asked again after this time: while its stream has no leader it is lost, and what
waits for the answer must not wait much longer than the election.
"""


class Requests(ABC):
    """What waits for replies. The verbs of the bus that do so are in streams.py, buckets.py and peers.py."""

    def __init__(self) -> None:
        self.inbox = ""
        """Subject prefix of replies; set before the first request."""
        self.full_store = FullStore()
        self._requests: dict[str, NatsRequest] = {}
        self._numbers = itertools.count()

    @abstractmethod
    def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = "") -> None:
        """Queue a message to be sent, in order. BusError, TooLargeError; after either, nothing was done."""

    @abstractmethod
    async def wait_room(self, size: int) -> None:
        """Wait until `size` bytes may be queued, behind earlier callers: so a caller that floods the queue waits, and
        no other is refused. BusError.
        """

    @abstractmethod
    def has_room(self, size: int) -> bool:
        """Whether `wait_room` would return at once."""

    async def question(self, subject: str, payload: bytes, *, most: float = 1) -> list[NatsMessage]:
        """Ask JetStream for something that changes nothing, several times if need be. BusError."""
        done, attempts = trio.Event(), list[NatsRequest]()
        with ExitStack() as stack:  # each may still be answered while the next ones are made: JetStream may be slow
            for _ in range(round(REQUEST_TIMEOUT / QUESTION_SECONDS)):
                attempts.append(stack.enter_context(self._request(subject, payload, None, most, done)))
                first = await first_done(attempts, QUESTION_SECONDS)
                if first is not None:
                    return first.all_replies()
        raise LateError("NATS did not answer")

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        seconds: float = REQUEST_TIMEOUT,
    ) -> list[NatsMessage]:
        """Ask JetStream and return its replies; BusError if they do not all come."""
        with self._request(subject, payload, headers) as request:
            await request.wait(seconds, "NATS did not answer; it may have been done")
        return request.all_replies()

    @contextmanager
    def _request(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        most: float = 1,
        done: trio.Event | None = None,
    ) -> Iterator[NatsRequest]:
        """Send a request, which takes replies until the end of the block. BusError."""
        token = str(next(self._numbers))
        request = self._requests[token] = NatsRequest(subject, most, done)
        try:
            self.send(subject, payload, headers, reply=f"{self.inbox}.{token}")
            yield request
        finally:
            del self._requests[token]

    def take_reply(self, reply: NatsMessage) -> None:
        request = self._requests.get(reply.subject.rpartition(".")[2])
        if request is not None:
            request.take(reply)

    def fail_requests(self, error: BusError, subject: str | None = None) -> None:
        """The replies under way, or those to requests on a subject, will never come."""
        for request in self._requests.values():
            if subject in (None, request.subject):
                request.fail(error)

    async def read_stored(self, stream: str, request: bytes) -> tuple[list[NatsMessage], int]:
        """Messages of a stream, by a batched direct get, and how many more there are."""
        *messages, end = await self.question(f"$JS.API.DIRECT.GET.{stream}", request, most=math.inf)
        if end.status not in (204, 404):  # the end of the batch, or nothing found
            raise BusError(f"JetStream could not read {stream}: status {end.status}")
        return messages, int(header_of(end.headers, "Nats-Num-Pending") or 0)

    async def write_stored(self, subject: str, payload: bytes, headers: dict[str, str], last: int | None) -> StoreAck:
        """Store a message on a subject whose newest one has the sequence number `last` (None: any)."""
        if last is not None:
            headers = {**headers, "Nats-Expected-Last-Subject-Sequence": str(last)}
        (reply,) = await self.request(subject, payload, headers=headers)
        try:
            ack = api_reply(reply.payload)
        except StorageFullError as error:
            self.full_store.hear(error)
            raise
        except JetStreamError as error:
            if error.code == 400 and last is not None:  # wrong last sequence
                raise ConflictError(f"{subject} has changed") from None
            raise
        self.full_store.hear(None)
        return StoreAck(int(ack["seq"]), bool(ack.get("duplicate", False)))
