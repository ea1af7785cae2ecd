"""The bus on NATS: nats-py inside a trio-asyncio loop. The only module that knows asyncio.

What a worker wants (`join`, `leave`, messages to send) is written down synchronously; one asyncio task, the pump,
carries it to the client in order and confirms new subscriptions with one PING for all of them. Messages and replies
come back through shared sinks that nats-py calls from its read loop: a callback task per subscription costs three times
as much (docs/explanation/decisions/0005-one-sink-for-all-subscriptions.md).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.engine.bus.interface import BusError, Deliver, OnLoss, TooLargeError
from fanline.engine.bus.nats.interest import Interest, Sink, subscribe
from fanline.engine.bus.nats.jetstream import DELETED_STREAMS, api_reply, position_of
from fanline.engine.bus.nats.options import NatsOptions
from fanline.engine.bus.nats.requests import REQUEST_TIMEOUT, Outgoing, Requests
from fanline.engine.bus.nats.streams import RefusedError, ensure_streams
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import namespace_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import stream_name
from fanline.protocol.nats.subjects import Direction, channel_of, from_subject, to_subject

MINIMUM_VERSION = (2, 11)
"""Older servers lack per-message TTL and the batched direct get that durable channels read with."""
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""What may wait for the pump; more means that NATS is behind."""
_OVERHEAD = 512  # bytes that a queued message takes besides its payload

_HEADER_BYTES = 32  # at most, for the first line of the headers and the punctuation of one

_BEATS = f"fanline.{Direction.BEAT}.>"
_CONNECT_TIMEOUT = 5.0
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
                    bus._end()
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(1, shield=True), suppress(OSError, nats.errors.Error):
                        await trio_asyncio.aio_as_trio(bus._client.close)()
    if refusal is not None:
        raise refusal


class NatsBus(Requests):
    """See engine/bus/interface.py for the promises; made by `open_nats_bus`."""

    def __init__(self, options: NatsOptions, namespaces: Namespaces) -> None:
        super().__init__()
        self._options = options
        self._namespaces = namespaces
        self._client = Client()
        self._sinks: dict[bool, Sink] = {}  # durable or not -> sink
        self._take_beat: Callable[[str], None] | None = None
        self._interest = Interest()
        self._on_loss: OnLoss = lambda _: None
        self._last_error: Exception | None = None
        self._outgoing: deque[Outgoing] = deque()
        self._outgoing_bytes = 0
        self._lost_since: float | None = None  # Unix seconds, while an outage has not been told
        self._work = asyncio.Event()
        self._back = asyncio.Event()
        self._ended = False

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def attach(self, deliver: Deliver, on_loss: OnLoss) -> None:
        # Only subjects made by to_subject are subscribed.
        def take(message: Msg) -> None:
            deliver(channel_of(message.subject), message.data, None)

        def take_stored(message: Msg) -> None:
            if self._lost_since is not None:
                return  # taken now, it would hide what was lost before it; all will be read once the loss is told
            deliver(channel_of(message.subject), message.data, position_of(message.headers or {}))

        self._sinks = {False: Sink(take), True: Sink(take_stored)}
        self._on_loss = on_loss
        for namespace in self._namespaces.everywhere():
            self._want(f"{namespace}:>")  # as a subject: all channels of it

    def join(self, channel: str) -> None:
        if not self._namespaces.of(channel).everywhere:
            self._want(channel)

    def _want(self, channel: str) -> None:
        self._interest.want(self._subject(channel), self._sinks[self._namespaces.of(channel).durable])
        self._work.set()

    def _subject(self, channel: str) -> str:
        """Where a channel is heard."""
        return to_subject(channel, Direction.OUT if self._namespaces.of(channel).durable else Direction.PUB)

    async def wait_joined(self, channel: str) -> None:
        everywhere = self._namespaces.of(channel).everywhere
        event = self._interest.unconfirmed(self._subject(f"{namespace_of(channel)}:>" if everywhere else channel))
        if event is not None:
            if not self._client.is_connected:
                raise BusError("NATS is not connected; try again")
            await event.wait()

    def leave(self, channel: str) -> None:
        if not self._namespaces.of(channel).everywhere:
            self._interest.drop(self._subject(channel))
            self._work.set()

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        self._take_beat = take
        if take is None:
            self._interest.drop(_BEATS)
        else:
            self._interest.want(_BEATS, Sink(self._hear_beat))
        self._work.set()

    def _hear_beat(self, beat: Msg) -> None:
        try:
            channel = from_subject(beat.subject)
        except MessageError:
            return  # anybody may publish there
        if self._take_beat is not None:
            self._take_beat(channel)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.send(Outgoing(to_subject(channel), payload))

    def _take_advisory(self, advisory: Msg) -> None:
        """A stream was deleted: nothing that is known of its channels holds any more."""
        if advisory.subject.rpartition(".")[2] in map(stream_name, self._namespaces.durable()):
            self._on_loss(time.time())
            self._lost_since = self._lost_since or time.time()  # told once more when it is there again
            self._back.set()

    def send(self, message: Outgoing) -> None:
        if not self._client.is_connected:
            raise BusError("NATS is not connected; nothing was done")
        if self._outgoing_bytes + len(message.payload) > MAX_QUEUED_BYTES:
            raise BusError("NATS does not keep up; nothing was done")
        # The server counts headers too, and ends the connection of who sends too much: an outage for all clients here.
        size = len(message.payload) + sum(
            _HEADER_BYTES + len(f"{k}{v}".encode()) for k, v in (message.headers or {}).items()
        )
        if size > self._client.max_payload:
            raise TooLargeError(f"{size} bytes with headers, but NATS takes {self._client.max_payload}")
        self._outgoing.append(message)
        self._outgoing_bytes += len(message.payload) + _OVERHEAD
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
        self.inbox = self._client.new_inbox()
        await subscribe(self._client, f"{self.inbox}.*", Sink(self.take_reply))
        await ensure_streams(self._api, self._namespaces)
        await subscribe(self._client, DELETED_STREAMS, Sink(self._take_advisory))

    async def _api(self, verb: str, stream: str, payload: bytes) -> dict[str, Any]:
        try:
            reply = await self._client.request(f"$JS.API.{verb}.{stream}", payload, timeout=REQUEST_TIMEOUT)
        except nats.errors.NoRespondersError:
            raise BusError("JetStream is not enabled there") from None
        except nats.errors.TimeoutError:
            raise BusError("JetStream does not answer") from None
        return api_reply(reply.data)

    def _client_options(self, name: str) -> dict[str, Any]:
        return {
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
            **self._options.client_options(),
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
        self.give_up_requests()

    async def _on_closed(self) -> None:
        self._work.set()

    async def _on_reconnected(self) -> None:
        _log.info("NATS connection is back")
        self._work.set()
        self._back.set()

    def _end(self) -> None:
        """Let the loops end. Cancelling them is not enough: nats-py swallows it while it flushes."""
        self._ended = True
        self._work.set()
        self._back.set()

    async def _pump(self) -> None:
        """Carry what was asked for to the client, in order."""
        while not self._ended:
            await self._work.wait()
            self._work.clear()
            if self._client.is_closed:
                # nats-py never reconnects after an error such as revoked credentials: a new process has to.
                raise BusError(f"NATS at {self._options.describe()} ended the connection: {self._last_error}")
            try:
                await self._interest.send_changes(self._client)
                await self._send_outgoing()
                await self._interest.confirm(self._client)
            except (nats.errors.Error, BusError, OSError) as error:
                # nats-py subscribes again by itself once it is back; only the confirmation has to be asked anew.
                _log.debug("NATS: %s", error)
                await asyncio.sleep(_RETRY_WAIT)
                self._work.set()

    async def _send_outgoing(self) -> None:
        for _ in range(len(self._outgoing)):  # what comes meanwhile waits for its turn, as joins do
            message = self._outgoing.popleft()
            self._outgoing_bytes -= len(message.payload) + _OVERHEAD
            await self._client.publish(message.subject, message.payload, message.reply, message.headers)

    async def _tell_losses(self) -> None:
        """After each outage tell it; not in the pump, for JetStream may take its time to come back."""
        while not self._ended:
            await self._back.wait()
            self._back.clear()
            while self._lost_since is not None and self._client.is_connected and not self._ended:
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
