"""The bus on NATS: nats-py inside a trio-asyncio loop. The only module that knows asyncio.

What a worker wants (`join`, `leave`, messages to send) is written down synchronously; one asyncio task, the pump,
carries it to the client in order and confirms new subscriptions with one PING for all of them. Messages and replies
come back through shared sinks that nats-py calls from its read loop: a callback task per subscription costs three times
as much (docs/explanation/decisions/0005-one-sink-for-all-subscriptions.md).
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, cast

import nats.errors
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from engine.bus import Bucket, BusError, ConflictError, Deliver, Note, OnLoss, Page, StreamState
from engine.jetstream import (
    JetStreamError,
    api_reply,
    bucket_stream,
    bucket_subject,
    get_request,
    last_request,
    place_of,
    read_request,
    state_of,
    stored_of,
    stream_name,
)
from engine.namespaces import Namespaces
from engine.nats_options import NatsOptions
from engine.streams import RefusedError, ensure_streams
from protocol.channels import Direction, namespace_of, to_subject

MINIMUM_VERSION = (2, 11)
"""Older servers lack per-message TTL and the batched direct get that durable channels read with."""
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""What may wait for the pump; more means that NATS is behind."""
_OVERHEAD = 512  # bytes that a queued message takes besides its payload

_HEADER_BYTES = 32  # at most, for the first line of the headers and the punctuation of one

_CONNECT_TIMEOUT = 5.0
_REQUEST_TIMEOUT = 5.0
_PING_INTERVAL = 10
_MAX_PINGS = 2
_RETRY_WAIT = 0.2
_log = logging.getLogger("fanline.bus")


@asynccontextmanager
async def open_nats_bus(
    options: NatsOptions, name: str, namespaces: Namespaces | None = None
) -> AsyncIterator["NatsBus"]:
    """A connected bus, and the asyncio loop it lives in; the streams of durable namespaces are there.

    Raises BusError if NATS cannot be used as it is.
    """
    bus = NatsBus(options, namespaces or Namespaces())
    async with trio_asyncio.open_loop():
        # Not raised in here: the loop's nurseries would wrap it in exception groups.
        refusal = await trio_asyncio.aio_as_trio(bus._connect)(name)
        if refusal is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio_asyncio.aio_as_trio(bus._pump))
                nursery.start_soon(trio_asyncio.aio_as_trio(bus._tell_losses))
                try:
                    yield bus
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(1, shield=True), suppress(OSError, nats.errors.Error):
                        await trio_asyncio.aio_as_trio(bus._client.close)()
    if refusal is not None:
        raise refusal


class _Sink:
    """Stands where nats-py expects a future: it asks `cancelled()` and calls `set_result()` for every message."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[Msg], None]) -> None:
        self._take = take

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        try:
            self._take(message)
        except Exception:  # noqa: BLE001  # it would end nats-py's read loop, and with it every channel
            _log.exception("a message on %s could not be delivered", message.subject)


_PREFIX_LENGTH = len("fanline.pub.")  # and of "fanline.out."


class _Request:
    """A request under way: one reply, or many up to one with a status."""

    __slots__ = ("done", "many", "replies")

    def __init__(self, many: bool) -> None:
        self.many = many
        self.replies: list[Msg] = []
        self.done = trio.Event()

    def take(self, reply: Msg) -> None:
        if self.done.is_set():
            return  # a second answer to one request
        self.replies.append(reply)
        if not self.many or "Status" in (reply.headers or ()):
            self.done.set()

    def give_up(self) -> None:
        """No more replies will come. A part of them is none: what is missing would look as if it were not there."""
        if not self.done.is_set():
            self.replies.clear()
            self.done.set()


class _Outgoing(NamedTuple):
    subject: str
    payload: bytes
    reply: str = ""
    headers: dict[str, str] | None = None


class NatsBus:
    """See engine/bus.py for the promises; made by `open_nats_bus`."""

    def __init__(self, options: NatsOptions, namespaces: Namespaces) -> None:
        self._options = options
        self._namespaces = namespaces
        self._client = Client()
        self._sinks: dict[bool, _Sink] = {}  # durable or not -> sink
        self._on_loss: OnLoss = lambda _: None
        self._last_error: Exception | None = None
        # Interest: what is wanted, what nats-py has, and what has to be brought together, in order.
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._changed: dict[str, None] = {}
        self._unconfirmed: dict[str, trio.Event] = {}
        self._outgoing: deque[_Outgoing] = deque()
        self._outgoing_bytes = 0
        self._requests: dict[str, _Request] = {}
        self._numbers = itertools.count()
        self._inbox = ""
        self._lost_since: float | None = None  # Unix seconds, while an outage has not been told
        self._work = asyncio.Event()
        self._back = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def attach(self, deliver: Deliver, on_loss: OnLoss) -> None:
        # Only subjects made by to_subject are subscribed, so cutting the prefix is its exact inverse.
        def take(message: Msg) -> None:
            deliver(message.subject[_PREFIX_LENGTH:].replace(".", ":", 1), message.data, None)

        def take_stored(message: Msg) -> None:
            if self._lost_since is not None:
                return  # taken now, it would hide what was lost before it; all will be read once the loss is told
            channel = message.subject[_PREFIX_LENGTH:].replace(".", ":", 1)
            deliver(channel, message.data, place_of(message.headers or {}))

        self._sinks = {False: _Sink(take), True: _Sink(take_stored)}
        self._on_loss = on_loss
        for namespace in self._namespaces.everywhere():
            self._want(f"{namespace}:>")  # as a subject: all channels of it

    def join(self, channel: str) -> None:
        if not self._namespaces.of(channel).everywhere:
            self._want(channel)

    def _want(self, channel: str) -> None:
        if channel not in self._wanted:
            self._wanted.add(channel)
            self._unconfirmed.setdefault(channel, trio.Event())
            self._note_change(channel)

    async def wait_joined(self, channel: str) -> None:
        everywhere = self._namespaces.of(channel).everywhere
        event = self._unconfirmed.get(f"{namespace_of(channel)}:>" if everywhere else channel)
        if event is not None:
            if not self._client.is_connected:
                raise BusError("NATS is not connected; try again")
            await event.wait()

    def leave(self, channel: str) -> None:
        if channel in self._wanted:
            self._wanted.discard(channel)
            self._unconfirmed.pop(channel, None)
            self._note_change(channel)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._send(_Outgoing(to_subject(channel), payload))

    async def store(self, channel: str, payload: bytes, message_id: str) -> int:
        (reply,) = await self._ask(to_subject(channel), payload, headers={"Nats-Msg-Id": message_id})
        return int(api_reply(reply.data)["seq"])

    async def stream_state(self, channel: str) -> StreamState:
        (reply,) = await self._ask(f"$JS.API.STREAM.INFO.{stream_name(namespace_of(channel))}", b"")
        return state_of(api_reply(reply.data))

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        newest: dict[str, int] = {}
        more = 1
        while more:  # large messages do not all come at once
            rest = [channel for channel in channels if channel not in newest]
            messages, more = await self._get(channels[0], last_request(rest))
            newest |= {stored.channel: stored.place.offset for stored in messages}
        return newest

    async def read(self, channel: str, start: int) -> Page:
        return await self._get(channel, read_request(channel, start))

    async def get(self, bucket: Bucket, key: str) -> Note | None:
        (reply,) = await self._ask(f"$JS.API.DIRECT.GET.{bucket_stream(bucket)}", get_request(bucket, key))
        headers = reply.headers or {}
        return None if headers.get("Status") == "404" else Note(reply.data, int(headers["Nats-Sequence"]))

    async def put(self, bucket: Bucket, key: str, value: bytes, revision: int) -> None:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        (reply,) = await self._ask(bucket_subject(bucket, key), value, headers=headers)
        try:
            api_reply(reply.data)
        except JetStreamError as error:
            if error.code == 400:  # wrong last sequence
                raise ConflictError(f"{key} has changed") from None
            raise

    def note(self, bucket: Bucket, key: str, value: bytes) -> None:
        with suppress(BusError):
            self._send(_Outgoing(bucket_subject(bucket, key), value))

    async def _get(self, channel: str, request: bytes) -> Page:
        """Messages of a channel's stream by a direct get, batched."""
        subject = f"$JS.API.DIRECT.GET.{stream_name(namespace_of(channel))}"
        *messages, end = await self._ask(subject, request, many=True)
        headers = end.headers or {}
        if headers["Status"] not in ("204", "404"):  # the end of the batch, or nothing found
            raise BusError(f"JetStream could not read {channel}: status {headers['Status']}")
        stored = [stored_of(message.data, message.headers or {}) for message in messages]
        return Page(stored, int(headers.get("Nats-Num-Pending", 0)))

    async def _ask(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, many: bool = False
    ) -> list[Msg]:
        """Request and replies over the one inbox; BusError without any reply."""
        token = str(next(self._numbers))
        request = self._requests[token] = _Request(many)
        try:
            self._send(_Outgoing(subject, payload, f"{self._inbox}.{token}", headers))
            with trio.move_on_after(_REQUEST_TIMEOUT):
                await request.done.wait()
        finally:
            del self._requests[token]
        if not request.replies or not request.done.is_set():
            raise BusError("NATS did not answer; it may have been done")
        if (request.replies[-1].headers or {}).get("Status") == "503":
            raise BusError("JetStream is not there; nothing was done")
        return request.replies

    def _take_reply(self, reply: Msg) -> None:
        request = self._requests.get(reply.subject.rpartition(".")[2])
        if request is not None:
            request.take(reply)

    def _send(self, message: _Outgoing) -> None:
        if not self._client.is_connected:
            raise BusError("NATS is not connected; nothing was done")
        if self._outgoing_bytes + len(message.payload) > MAX_QUEUED_BYTES:
            raise BusError("NATS does not keep up; nothing was done")
        # The server counts headers too, and ends the connection of who sends too much: an outage for all clients here.
        size = len(message.payload) + sum(
            _HEADER_BYTES + len(f"{k}{v}".encode()) for k, v in (message.headers or {}).items()
        )
        if size > self._client.max_payload:
            raise BusError(f"{size} bytes with headers, but NATS takes {self._client.max_payload}")
        self._outgoing.append(message)
        self._outgoing_bytes += len(message.payload) + _OVERHEAD
        self._work.set()

    def _note_change(self, channel: str) -> None:
        self._changed[channel] = None
        self._work.set()

    # --- the asyncio side ---------------------------------------------------------------------------------------

    async def _connect(self, name: str) -> BusError | None:
        """Connect; the reason why not, if NATS cannot be used as it is."""
        where = self._options.describe()
        try:
            await asyncio.wait_for(self._client.connect(**self._client_options(name)), _CONNECT_TIMEOUT)
        except BusError as error:
            return error
        except (TimeoutError, OSError, nats.errors.Error, ValueError) as error:
            cause = self._last_error or error
            return BusError(f"cannot connect to NATS at {where}: {str(cause) or type(cause).__name__}")
        try:
            await self._prepare()
        except (BusError, nats.errors.Error) as error:
            await self._client.close()
            return BusError(f"NATS at {where} cannot be used: {error}")
        return None

    async def _prepare(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < MINIMUM_VERSION:
            wanted = ".".join(map(str, MINIMUM_VERSION))
            found = f"{version.major}.{version.minor}.{version.patch}"
            raise BusError(f"it is version {found}; Fanline needs {wanted} or newer")
        self._inbox = self._client.new_inbox()
        sink = cast("asyncio.Future[Msg]", _Sink(self._take_reply))
        await self._client.subscribe(f"{self._inbox}.*", future=sink)
        await ensure_streams(self._api, self._namespaces)

    async def _api(self, verb: str, stream: str, payload: bytes) -> dict[str, Any]:
        try:
            reply = await self._client.request(f"$JS.API.{verb}.{stream}", payload, timeout=_REQUEST_TIMEOUT)
        except nats.errors.NoRespondersError:
            raise BusError("JetStream is not enabled there") from None
        except nats.errors.TimeoutError:
            raise BusError("JetStream does not answer") from None
        return api_reply(reply.data)

    def _client_options(self, name: str) -> dict[str, Any]:
        options = self._options
        credentials = {
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "user_credentials": options.creds,
        }
        return {
            "servers": list(options.servers),
            "name": f"fanline {name}",
            "connect_timeout": 2,
            "reconnect_time_wait": _RETRY_WAIT,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_INTERVAL,
            "max_outstanding_pings": _MAX_PINGS,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "closed_cb": self._on_closed,
            "reconnected_cb": self._on_reconnected,
            "tls": options.tls_context(),
            **{key: value for key, value in credentials.items() if value},
        }

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        _log.debug("NATS: %s", error)

    async def _on_disconnected(self) -> None:
        if self._client.is_closed:
            return
        _log.warning("NATS connection lost, reconnecting")
        # It may have been dead for as long as it takes to miss the pings.
        self._lost_since = self._lost_since or time.time() - _PING_INTERVAL * _MAX_PINGS
        for request in self._requests.values():
            request.give_up()

    async def _on_closed(self) -> None:
        self._work.set()

    async def _on_reconnected(self) -> None:
        _log.info("NATS connection is back")
        self._work.set()
        self._back.set()

    async def _pump(self) -> None:
        """Carry what was asked for to the client, in order, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            if self._client.is_closed:
                # nats-py never reconnects after an error such as revoked credentials: a new process has to.
                raise BusError(f"NATS at {self._options.describe()} ended the connection: {self._last_error}")
            try:
                await self._send_changes()
                await self._send_outgoing()
                await self._confirm()
            except (nats.errors.Error, BusError, OSError) as error:
                # nats-py subscribes again by itself once it is back; only the confirmation has to be asked anew.
                _log.debug("NATS: %s", error)
                await asyncio.sleep(_RETRY_WAIT)
                self._work.set()

    async def _send_changes(self) -> None:
        while self._changed:
            channel = next(iter(self._changed))
            del self._changed[channel]  # before the await: a change of mind meanwhile is noted anew
            try:
                await self._bring_together(channel)
            except BaseException:
                self._changed.setdefault(channel, None)
                raise

    async def _bring_together(self, channel: str) -> None:
        if channel in self._wanted:
            if channel not in self._subscriptions:
                durable = self._namespaces.of(channel).durable
                subject = to_subject(channel, Direction.OUT if durable else Direction.PUB)
                sink = cast("asyncio.Future[Msg]", self._sinks[durable])
                self._subscriptions[channel] = await self._client.subscribe(subject, future=sink)
        elif (subscription := self._subscriptions.pop(channel, None)) is not None:
            await subscription.unsubscribe()

    async def _send_outgoing(self) -> None:
        for _ in range(len(self._outgoing)):  # what comes meanwhile waits for its turn, as joins do
            message = self._outgoing.popleft()
            self._outgoing_bytes -= len(message.payload) + _OVERHEAD
            await self._client.publish(message.subject, message.payload, message.reply, message.headers)

    async def _confirm(self) -> None:
        """One round trip to the server proves that every SUB before it is in effect."""
        waiting = {channel: event for channel, event in self._unconfirmed.items() if channel in self._subscriptions}
        if not waiting:
            return
        await self._client.flush(timeout=2)
        if not self._client.is_connected:  # while reconnecting, nats-py's flush returns at once and proves nothing
            raise nats.errors.ConnectionReconnectingError
        for channel, event in waiting.items():
            event.set()
            if self._unconfirmed.get(channel) is event:
                del self._unconfirmed[channel]

    async def _tell_losses(self) -> None:
        """After each outage tell it; not in the pump, for JetStream may take its time to come back."""
        while True:
            await self._back.wait()
            self._back.clear()
            while self._lost_since is not None and self._client.is_connected:
                try:
                    await self._tell_loss(self._lost_since)
                except (nats.errors.Error, BusError, OSError) as error:
                    _log.debug("NATS: %s", error)
                    await asyncio.sleep(_RETRY_WAIT)

    async def _tell_loss(self, since: float) -> None:
        """Once all subscriptions are in effect again, and the streams there: those in memory went with the server."""
        try:
            await ensure_streams(self._api, self._namespaces)
        except RefusedError as error:
            _log.error("after the outage: %s", error)
        await self._client.flush(timeout=2)
        if self._client.is_connected:
            self._lost_since = None
            self._on_loss(since)
