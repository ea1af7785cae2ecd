"""The bus on NATS: nats-py inside a trio-asyncio loop. The only module of the engine that knows asyncio.

What a worker asks for (`join`, `leave`, messages to send) is recorded synchronously; one asyncio task, the pump, passes
it to the client in order and confirms new subscriptions with one PING for all of them. Messages and replies come back
through shared sinks that nats-py calls from its read loop: a callback task per subscription costs three times as much
(docs/explanation/decisions/0005-one-sink-for-all-subscriptions.md).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.engine.bus.interface import BusError, Deliver, OnLoss
from fanline.engine.bus.nats.interest import Interest, Sink, subscribe
from fanline.engine.bus.nats.jetstream import DELETED_STREAMS, api_reply, position_of
from fanline.engine.bus.nats.options import DEAD_SECONDS, RETRY_SECONDS, NatsOptions, check_version
from fanline.engine.bus.nats.outgoing import Outgoing, OutgoingQueue
from fanline.engine.bus.nats.requests import REQUEST_TIMEOUT, Requests
from fanline.engine.bus.nats.streams import RefusedError, ensure_streams
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import namespace_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import namespace_subject, stream_name
from fanline.protocol.nats.subjects import Direction, channel_of, from_subject, to_subject

_BEATS = f"fanline.{Direction.BEAT}.>"
_CONNECT_TIMEOUT = 5.0  # seconds, for all servers together
_FLUSH_TIMEOUT = 2  # seconds
_FLUSHER_PAUSE = 0.005  # seconds; nats-py's flusher writes at its next turn, unless the connection is backlogged
_NATS_FAILURES = (nats.errors.Error, BusError, OSError)
_log = logging.getLogger("fanline.bus")


@asynccontextmanager
async def open_nats_bus(
    options: NatsOptions, name: str, namespaces: Namespaces | None = None
) -> AsyncIterator["NatsBus"]:
    """A connected bus with the asyncio loop it lives in; the streams of durable namespaces exist.

    Raises BusError if NATS cannot be used as it is.
    """
    bus = NatsBus(options, namespaces or Namespaces())
    async with trio_asyncio.open_loop():
        # Not raised in here: the loop's nurseries would wrap it in exception groups.
        refusal = await trio_asyncio.aio_as_trio(bus._connect)(name)
        if refusal is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio_asyncio.aio_as_trio(bus._pump))
                nursery.start_soon(trio_asyncio.aio_as_trio(bus._report_losses))
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
        self._outgoing = OutgoingQueue()
        self._lost_since: float | None = None  # Unix seconds, while an outage has not been reported
        self._work = asyncio.Event()
        self._back = asyncio.Event()
        self._ended = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS at the moment."""
        return self._client.is_connected

    # --- the Trio side: what workers ask for ----------------------------------------------------------------------

    def attach(self, deliver: Deliver, on_loss: OnLoss) -> None:
        # Only subjects made by to_subject are subscribed, so channel_of needs no checks.
        def take(message: Msg) -> None:
            deliver(channel_of(message.subject), message.data, None)

        def take_stored(message: Msg) -> None:
            if self._lost_since is not None:
                return  # taken now, it would hide what was lost before it; all is read once the loss is reported
            deliver(channel_of(message.subject), message.data, position_of(message.headers or {}))

        self._sinks = {False: Sink(take), True: Sink(take_stored)}
        self._on_loss = on_loss
        for namespace in self._namespaces.everywhere():
            self._subscribe(f"{namespace}:")

    def join(self, channel: str) -> None:
        if not self._namespaces.of(channel).everywhere:
            self._subscribe(channel)

    def _subscribe(self, channel: str) -> None:
        self._interest.want(self._subject(channel), self._sinks[self._namespaces.of(channel).durable])
        self._work.set()

    def _subject(self, channel: str) -> str:
        """The subject on which a channel's messages arrive: one for all of a namespace that every worker hears."""
        namespace = self._namespaces.of(channel)
        direction = Direction.OUT if namespace.durable else Direction.PUB
        if namespace.everywhere:
            return namespace_subject(namespace_of(channel), direction)
        return to_subject(channel, direction)

    async def wait_joined(self, channel: str) -> None:
        confirmed = self._interest.unconfirmed(self._subject(channel))
        if confirmed is not None:
            if not self._client.is_connected:
                raise BusError("NATS is not connected; try again")
            await confirmed.wait()

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
            return  # any client of NATS may publish there
        if self._take_beat is not None:
            self._take_beat(channel)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.send(Outgoing(to_subject(channel), payload))

    def send(self, message: Outgoing) -> None:
        if not self._client.is_connected:
            raise BusError("NATS is not connected; nothing was done")
        self._outgoing.put(message, self._client.max_payload)
        self._work.set()

    def _take_advisory(self, advisory: Msg) -> None:
        """A stream was deleted: whatever is known of its channels no longer holds."""
        if advisory.subject.rpartition(".")[2] in map(stream_name, self._namespaces.durable()):
            self._on_loss(time.time())
            self._lost_since = self._lost_since or time.time()  # reported once more when the stream exists again
            self._back.set()

    # --- the asyncio side: connecting -----------------------------------------------------------------------------

    async def _connect(self, name: str) -> BusError | None:
        """Connect; the reason if NATS cannot be used as it is."""
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
        check_version(version.major, version.minor, version.patch)
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
            **self._options.client_options(name),
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "closed_cb": self._on_closed,
            "reconnected_cb": self._on_reconnected,
        }

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        _log.debug("NATS: %s", error)

    async def _on_disconnected(self) -> None:
        if self._client.is_closed:
            return
        _log.warning("NATS connection lost, reconnecting")
        self._lost_since = self._lost_since or time.time() - DEAD_SECONDS
        self.give_up_requests()

    async def _on_closed(self) -> None:
        self._work.set()

    async def _on_reconnected(self) -> None:
        _log.info("NATS connection is back")
        self._work.set()
        self._back.set()

    # --- the asyncio side: the pump and the report of losses ------------------------------------------------------

    def _end(self) -> None:
        """Let both loops end. Cancelling them is not enough: nats-py swallows it while it flushes."""
        self._ended = True
        self._work.set()
        self._back.set()

    async def _pump(self) -> None:
        """Pass what was asked for to the client, in order."""
        while not self._ended:
            await self._work.wait()
            self._work.clear()
            if self._client.is_closed:
                # nats-py never reconnects after an error such as revoked credentials: a new process has to.
                raise BusError(f"NATS at {self._options.describe()} ended the connection: {self._last_error}")
            try:
                await self._interest.send_changes(self._client)
                await self._send_outgoing()
                await self._interest.confirm(self._client, self._round_trip)
            except _NATS_FAILURES as error:
                # nats-py subscribes again by itself once it is back; only the confirmation has to be repeated.
                _log.debug("NATS: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._work.set()

    async def _send_outgoing(self) -> None:
        for _ in range(len(self._outgoing)):  # what is added meanwhile waits for its turn, as joins do
            if self._ended:
                return  # nats-py has swallowed the cancellation, and would wait for ever in its next flush
            message = self._outgoing.pop()
            await self._client.publish(message.subject, message.payload, message.reply, message.headers)

    async def _report_losses(self) -> None:
        """Report each outage once it is over; not in the pump, for JetStream may take its time to come back."""
        while not self._ended:
            await self._back.wait()
            self._back.clear()
            while self._lost_since is not None and self._client.is_connected and not self._ended:
                try:
                    await self._report_loss(self._lost_since)
                except _NATS_FAILURES as error:
                    _log.debug("NATS: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _report_loss(self, since: float) -> None:
        """Report it once all subscriptions are in effect and all streams exist: an outage ends those in memory."""
        try:
            await ensure_streams(self._api, self._namespaces)
        except RefusedError as error:
            _log.error("after the outage: %s", error)
        await self._round_trip()
        if self._client.is_connected:
            self._lost_since = None
            self._on_loss(since)

    async def _round_trip(self) -> None:
        """Return when the server has taken everything that was sent before."""
        # nats-py writes a PING at once, in front of the commands that its flusher has still to write.
        pause = 0.0
        while self._client.pending_data_size and self._client.is_connected and not self._ended:
            await asyncio.sleep(pause)
            pause = _FLUSHER_PAUSE
        await self._client.flush(timeout=_FLUSH_TIMEOUT)
