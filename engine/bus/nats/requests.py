"""The requests of the bus on NATS, to JetStream and to producers, with all replies over one inbox.

A request is queued like any other message; its replies are taken synchronously from the reading task and matched by the
last token of their subject, so that all requests together need one subscription.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

import msgspec
import trio

from fanline.engine.bus.interface import (
    PING,
    PING_SECONDS,
    READ_BATCH,
    BusError,
    ConflictError,
    KvEntry,
    LateError,
    NoListenerError,
    Page,
    StorageFullError,
    StoreAck,
    Stored,
    StreamState,
)
from fanline.engine.bus.nats.full_store import FullStore
from fanline.engine.bus.nats.jetstream import (
    EXPECTED_STREAM,
    JetStreamError,
    NoJetStreamError,
    api_reply,
    check_refusal,
    check_room,
    entry_of,
    get_request,
    last_request,
    one_request,
    read_request,
    state_of,
    subject_of,
)
from fanline.engine.bus.nats.signatures import Signatures
from fanline.protocol.channels import namespace_of
from fanline.protocol.nats.names import (
    MESSAGE_ID,
    Bucket,
    bucket_stream,
    bucket_subject,
    key_of,
    namespace_subject,
    stream_name,
)
from fanline.protocol.nats.parser import NatsMessage, header_of
from fanline.protocol.nats.subjects import Direction, to_subject

REQUEST_TIMEOUT = 5.0
"""Seconds in which JetStream has to answer."""
QUESTION_SECONDS = 0.5
"""A question that changes nothing is asked again after this time: while its stream has no leader it is lost, and what
waits for the answer must not wait much longer than the election.
"""


class _Request:
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
        if await _first_done([self], seconds) is None:
            raise LateError(late)
        if self.failure is not None:
            raise self.failure


async def _first_done(attempts: Sequence[_Request], seconds: float) -> _Request | None:
    """The attempt at a question that is done first; None if no reply to any of them comes for `seconds` seconds."""
    done, count = attempts[0].done, -1
    while not done.is_set() and (replies := sum(len(attempt.replies) for attempt in attempts)) > count:
        count = replies
        with trio.move_on_after(seconds):
            await done.wait()
    return next((attempt for attempt in attempts if attempt.is_done), None)


class Requests(ABC):
    """The methods of a bus that wait for replies; see engine/bus/interface.py for the promises."""

    def __init__(self) -> None:
        self.inbox = ""
        """Subject prefix of replies; set before the first request."""
        self.full_store = FullStore()
        self.signatures = Signatures()
        self._requests: dict[str, _Request] = {}
        self._numbers = itertools.count()

    @abstractmethod
    def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = "") -> None:
        """Queue a message to be sent, in order. BusError, TooLargeError; after either, nothing was done."""

    @abstractmethod
    async def wait_room(self, size: int) -> None:
        """Wait until `size` bytes may be queued, behind those who came first: so whoever floods the queue waits, and
        nobody else is refused. BusError.
        """

    @abstractmethod
    def has_room(self, size: int) -> bool:
        """Whether `wait_room` would return at once."""

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        if signed and self.signatures.needs_time:
            await self.stream_state(channel)
        await self.wait_room(len(payload))
        headers = {} if store_id is None else {MESSAGE_ID: store_id}
        if signed:
            headers = self.signatures.headers(channel, store_id or "", payload)
        return await self._write(to_subject(channel), payload, headers, last)

    async def stream_state(self, channel: str) -> StreamState:
        (reply,) = await self.question(f"$JS.API.STREAM.INFO.{stream_name(namespace_of(channel))}", b"")
        info = api_reply(reply.payload)
        if "ts" in info:
            self.signatures.hear_time(info["ts"])
        return state_of(info)

    async def check_writable(self, namespace: str) -> None:
        (reply,) = await self.question(f"$JS.API.STREAM.INFO.{stream_name(namespace)}", b"")
        check_room(api_reply(reply.payload))
        # Only the stream's leader refuses this message, and only if it would take one without the condition.
        (reply,) = await self.request(to_subject(f"{namespace}:x"), b"", headers={EXPECTED_STREAM: "none"})
        check_refusal(reply.payload)

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        stream = stream_name(namespace_of(channels[0]))
        newest: dict[str, int] = {}
        more = 1
        while more:  # large messages do not fit into one answer
            rest = [channel for channel in channels if channel not in newest]
            messages, more = await self._read(stream, last_request([to_subject(channel) for channel in rest]))
            newest |= {stored.channel: stored.position.offset for stored in self._page(messages, more).messages}
        return newest

    async def read(self, channel: str, start: int, most: int = READ_BATCH) -> Page:
        request = read_request(to_subject(channel), start, most)
        return self._page(*await self._read(stream_name(namespace_of(channel)), request))

    async def read_one(self, channel: str, offset: int) -> Stored | None:
        stream = stream_name(namespace_of(channel))
        (reply,) = await self.question(f"$JS.API.DIRECT.GET.{stream}", one_request(offset))
        found = None if reply.status == 404 else self.signatures.stored_of(reply)
        return found if found is not None and found.channel == channel else None

    async def read_namespace(self, namespace: str, start: int) -> Page:
        page = self._page(*await self._read(stream_name(namespace), read_request(namespace_subject(namespace), start)))
        if page.messages:
            # JetStream says for each message which one came before it in the page, whatever its channel; and of the
            # first one that none did, which would hide what its channel has from before the page.
            first = page.messages[0]
            position = msgspec.structs.replace(first.position, previous=start - 1)
            page.messages[0] = first._replace(position=position)
        return page

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        (reply,) = await self.question(f"$JS.API.DIRECT.GET.{bucket_stream(bucket)}", get_request(bucket, key))
        return None if reply.status == 404 else entry_of(reply)

    async def kv_get_many(self, bucket: Bucket, keys: Sequence[str]) -> dict[str, KvEntry]:
        entries: dict[str, KvEntry] = {}
        more = 1
        while more:  # large values do not fit into one answer
            rest = [bucket_subject(bucket, key) for key in keys if key not in entries]
            messages, more = await self._read(bucket_stream(bucket), last_request(rest))
            entries |= {key_of(bucket, subject_of(message)): entry_of(message) for message in messages}
        return entries

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        return (await self._write(bucket_subject(bucket, key), value, {}, revision)).offset

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        with suppress(BusError):
            self.send(bucket_subject(bucket, key), value)

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, revision: int | None = None) -> int:
        headers = {"Nats-TTL": f"{math.ceil(seconds)}s"}
        return (await self._write(bucket_subject(bucket, key), value, headers, revision)).offset

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        found: dict[str, KvEntry] = {}
        more, every = 1, bucket_subject(bucket, f"{prefix}.>" if prefix else ">")
        while more:
            messages, more = await self._read(bucket_stream(bucket), read_request(every, after + 1))
            for message in messages:
                entry = found[key_of(bucket, subject_of(message))] = entry_of(message)
                after = entry.revision
        return {key: entry for key, entry in found.items() if entry.value}

    async def kv_page(self, bucket: Bucket, after: int, most: int) -> dict[str, KvEntry]:
        messages, _ = await self._read(
            bucket_stream(bucket), read_request(bucket_subject(bucket, ">"), after + 1, most)
        )
        return {key_of(bucket, subject_of(message)): entry_of(message) for message in messages}

    async def _write(self, subject: str, payload: bytes, headers: dict[str, str], last: int | None) -> StoreAck:
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

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        await self.wait_room(len(payload))
        with self._request(subject, payload) as request:
            await request.wait(seconds, f"no answer on {subject} within {seconds:g} s")
        if request.status == 503:
            raise NoListenerError(f"nobody answers on {subject}")
        return request.replies[0].payload

    async def ask_all(self, subject: str, payload: bytes, seconds: float, count: int) -> list[bytes]:
        await self.wait_room(len(payload))
        with self._request(subject, payload, most=count) as request:
            with trio.move_on_after(seconds):
                await request.done.wait()
        if request.failure is not None:
            raise request.failure
        return [reply.payload for reply in request.replies if reply.status is None]

    def tell(self, subject: str, payload: bytes) -> None:
        with suppress(BusError):
            self.send(subject, payload)

    def tell_if_room(self, subject: str, payload: bytes, store_id: str | None = None) -> bool:
        if not self.has_room(len(payload)):
            return False
        with suppress(BusError):
            self.send(subject, payload, None if store_id is None else {MESSAGE_ID: store_id})
            return True
        return False

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        try:
            return await self.ask(to_subject(channel, Direction.CTL), payload, seconds)
        except NoListenerError:
            raise NoListenerError(f"no producer is attached to {channel}") from None
        except LateError:
            raise LateError(f"the producer of {channel} did not answer within {seconds:g} s") from None

    async def has_producer(self, channel: str) -> bool:
        try:
            await self.call(channel, PING, PING_SECONDS)
        except (NoListenerError, LateError):
            return False
        return True

    async def _read(self, stream: str, request: bytes) -> tuple[list[NatsMessage], int]:
        """Messages of a stream, by a batched direct get, and how many more there are."""
        *messages, end = await self.question(f"$JS.API.DIRECT.GET.{stream}", request, most=math.inf)
        if end.status not in (204, 404):  # the end of the batch, or nothing found
            raise BusError(f"JetStream could not read {stream}: status {end.status}")
        return messages, int(header_of(end.headers, "Nats-Num-Pending") or 0)

    def _page(self, messages: Sequence[NatsMessage], more: int) -> Page:
        return Page([self.signatures.stored_of(message) for message in messages], more)

    async def question(self, subject: str, payload: bytes, *, most: float = 1) -> list[NatsMessage]:
        """Ask JetStream for something that changes nothing, several times if need be. BusError."""
        done, attempts = trio.Event(), list[_Request]()
        with ExitStack() as stack:  # each may still be answered while the next ones are made: JetStream may be slow
            for _ in range(round(REQUEST_TIMEOUT / QUESTION_SECONDS)):
                attempts.append(stack.enter_context(self._request(subject, payload, None, most, done)))
                first = await _first_done(attempts, QUESTION_SECONDS)
                if first is not None:
                    return _replies_of(first)
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
        return _replies_of(request)

    @contextmanager
    def _request(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        most: float = 1,
        done: trio.Event | None = None,
    ) -> Iterator[_Request]:
        """Send a request, which takes replies until the end of the block. BusError."""
        token = str(next(self._numbers))
        request = self._requests[token] = _Request(subject, most, done)
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


def _replies_of(request: _Request) -> list[NatsMessage]:
    """Of a request that is done."""
    if request.failure is not None:
        raise request.failure
    if request.status == 503:
        raise NoJetStreamError("JetStream is not there; nothing was done")
    return request.replies
