"""The requests of the bus on NATS, to JetStream and to producers, with all replies over one inbox. No asyncio here.

A request is queued like any other message; its replies are taken synchronously from nats-py's read loop and matched by
the last token of their subject, so that all requests together need one subscription.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import trio
from nats.aio.msg import Msg

from fanline.engine.bus.interface import BusError, ConflictError, KvEntry, NoListenerError, Page, StreamState
from fanline.engine.bus.nats.jetstream import (
    JetStreamError,
    api_reply,
    get_request,
    last_request,
    read_request,
    state_of,
    stored_of,
)
from fanline.engine.bus.nats.outgoing import Outgoing
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
from fanline.protocol.nats.subjects import Direction, to_subject

REQUEST_TIMEOUT = 5.0
"""Seconds in which JetStream has to answer."""
_PING = b'{"v":1,"t":"ping"}'


class _Request:
    """A request under way. It gets one reply, or with `many` any number of them up to one with a status."""

    __slots__ = ("done", "many", "replies")

    def __init__(self, many: bool) -> None:
        self.many = many
        self.replies: list[Msg] = []
        self.done = trio.Event()

    def take(self, reply: Msg) -> None:
        if self.done.is_set():
            return  # a second answer to the same request
        self.replies.append(reply)
        if not self.many or "Status" in (reply.headers or ()):
            self.done.set()

    @property
    def status(self) -> str:
        """Status of the newest reply, "" if it has none; 503 comes from the server itself: no client listens there."""
        return str((self.replies[-1].headers or {}).get("Status", "")) if self.replies else ""

    def give_up(self) -> None:
        """No more replies will come. Part of an answer is dropped: what is missing would seem not to exist."""
        if not self.done.is_set():
            self.replies.clear()
            self.done.set()


class Requests(ABC):
    """The methods of a bus that wait for replies; see engine/bus/interface.py for the promises."""

    def __init__(self) -> None:
        self.inbox = ""
        """Subject prefix of replies; set before the first request."""
        self._requests: dict[str, _Request] = {}
        self._numbers = itertools.count()

    @abstractmethod
    def send(self, message: Outgoing) -> None:
        """Queue a message to be sent, in order. BusError, TooLargeError; after either, nothing was done."""

    async def store(self, channel: str, payload: bytes, message_id: str) -> int:
        (reply,) = await self._ask(to_subject(channel), payload, headers={MESSAGE_ID: message_id})
        return int(api_reply(reply.data)["seq"])

    async def stream_state(self, channel: str) -> StreamState:
        (reply,) = await self._ask(f"$JS.API.STREAM.INFO.{stream_name(namespace_of(channel))}", b"")
        return state_of(api_reply(reply.data))

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        stream = stream_name(namespace_of(channels[0]))
        newest: dict[str, int] = {}
        more = 1
        while more:  # large messages do not fit into one answer
            rest = [channel for channel in channels if channel not in newest]
            messages, more = await self._read(stream, last_request(rest))
            newest |= {stored.channel: stored.position.offset for stored in _page(messages, more).messages}
        return newest

    async def read(self, channel: str, start: int) -> Page:
        return _page(*await self._read(stream_name(namespace_of(channel)), read_request(to_subject(channel), start)))

    async def read_namespace(self, namespace: str, start: int) -> Page:
        return _page(*await self._read(stream_name(namespace), read_request(namespace_subject(namespace), start)))

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        (reply,) = await self._ask(f"$JS.API.DIRECT.GET.{bucket_stream(bucket)}", get_request(bucket, key))
        headers = reply.headers or {}
        return None if headers.get("Status") == "404" else KvEntry(reply.data, int(headers["Nats-Sequence"]))

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> None:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        (reply,) = await self._ask(bucket_subject(bucket, key), value, headers=headers)
        try:
            api_reply(reply.data)
        except JetStreamError as error:
            if error.code == 400:  # wrong last sequence
                raise ConflictError(f"{key} has changed") from None
            raise

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        with suppress(BusError):
            self.send(Outgoing(bucket_subject(bucket, key), value))

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float) -> None:
        headers = {"Nats-TTL": f"{math.ceil(seconds)}s"}
        (reply,) = await self._ask(bucket_subject(bucket, key), value, headers=headers)
        api_reply(reply.data)

    async def kv_entries(self, bucket: Bucket) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        start, more = 1, 1
        while more:
            request = read_request(bucket_subject(bucket, ">"), start)
            messages, more = await self._read(bucket_stream(bucket), request)
            for headers, value in ((message.headers or {}, message.data) for message in messages):
                found[key_of(bucket, headers["Nats-Subject"])] = value
                start = int(headers["Nats-Sequence"]) + 1
        return {key: value for key, value in found.items() if value}

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        with self._request(to_subject(channel, Direction.CTL), payload) as request:
            with trio.move_on_after(seconds):
                await request.done.wait()
            if not request.done.is_set():
                raise BusError(f"the producer of {channel} did not answer within {seconds:g} s")
        if not request.replies:
            raise BusError("NATS went away before the producer answered; it may have been done")
        if request.status == "503":
            raise NoListenerError(f"no producer is attached to {channel}")
        return request.replies[0].data

    async def has_listener(self, channel: str) -> bool:
        # If no client listens the server says so at once, and before it answers the request that is sent next.
        with self._request(to_subject(channel, Direction.CTL), _PING) as request:
            await self.stream_state(channel)
            return request.status != "503"

    async def _read(self, stream: str, request: bytes) -> tuple[list[Msg], int]:
        """Messages of a stream, by a batched direct get, and how many more there are."""
        *messages, end = await self._ask(f"$JS.API.DIRECT.GET.{stream}", request, many=True)
        headers = end.headers or {}
        if headers["Status"] not in ("204", "404"):  # the end of the batch, or nothing found
            raise BusError(f"JetStream could not read {stream}: status {headers['Status']}")
        return messages, int(headers.get("Nats-Num-Pending", 0))

    async def _ask(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, many: bool = False
    ) -> list[Msg]:
        """Ask JetStream and return its replies; BusError if they do not all come."""
        with self._request(subject, payload, headers, many) as request:
            with trio.move_on_after(REQUEST_TIMEOUT):
                await request.done.wait()
        if not request.replies or not request.done.is_set():
            raise BusError("NATS did not answer; it may have been done")
        if request.status == "503":
            raise BusError("JetStream is not there; nothing was done")
        return request.replies

    @contextmanager
    def _request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, many: bool = False
    ) -> Iterator[_Request]:
        """Send a request, which takes replies until the end of the block. BusError."""
        token = str(next(self._numbers))
        request = self._requests[token] = _Request(many)
        try:
            self.send(Outgoing(subject, payload, f"{self.inbox}.{token}", headers))
            yield request
        finally:
            del self._requests[token]

    def take_reply(self, reply: Msg) -> None:
        request = self._requests.get(reply.subject.rpartition(".")[2])
        if request is not None:
            request.take(reply)

    def give_up_requests(self) -> None:
        """The connection is gone: the replies under way will never come."""
        for request in self._requests.values():
            request.give_up()


def _page(messages: Sequence[Msg], more: int) -> Page:
    return Page([stored_of(message.data, message.headers or {}) for message in messages], more)
