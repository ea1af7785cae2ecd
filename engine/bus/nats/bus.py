"""The bus on NATS: core NATS carries what is ephemeral, JetStream stores and republishes what is durable.

What a worker asks for (`join`, `leave`, messages to send) goes to the client synchronously; messages and replies come
back through sinks that the client calls from its reading task (client/client.py). After an outage messages flow as soon
as the subscriptions are back; what was missed is fetched beside them (engine/channels/durable/recovery.py).
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from fanline.engine.bus.errors import BusError, TooLargeError
from fanline.engine.bus.interface import AfterBurst, Answerer, BucketWatcher, Deliver, NamespaceListener, OnLoss
from fanline.engine.bus.nats.bucket_watches import BucketWatches
from fanline.engine.bus.nats.client.client import NatsClient
from fanline.engine.bus.nats.interest import NamespaceInterest, SubjectInterest
from fanline.engine.bus.nats.jetstream import (
    DELETED_STREAMS,
    NoJetStreamError,
    api_reply,
    sequence_of,
)
from fanline.engine.bus.nats.requests.buckets import BucketRequests
from fanline.engine.bus.nats.requests.peers import PeerRequests
from fanline.engine.bus.nats.requests.streams import StreamRequests
from fanline.engine.bus.nats.streams.stream_keeper import StreamKeeper
from fanline.engine.bus.stored import Stored
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import is_pattern, namespace_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats import commands
from fanline.protocol.nats.connection import Sink
from fanline.protocol.nats.names import Bucket, namespace_subject, stream_name
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsMessage
from fanline.protocol.nats.replies import Complaint, ComplaintKind
from fanline.protocol.nats.subjects import Direction, channel_of, from_subject, to_subject

MINIMUM_VERSION = (2, 11)
"""Older servers lack per-message TTL and the batched direct get with which durable channels are read."""
MAX_UNSENT_BYTES = 16 * 1024 * 1024
"""Bytes that may wait to be sent; more means that NATS does not keep up. What clients publish waits long before that
(client/client.py), so that the rest is for the worker's own requests.
"""

_BEATS = f"fanline.{Direction.BEAT}.>"
_WORKERS = "fanline-workers"
"""Queue of those subjects on which one worker answers for all."""
_log = logging.getLogger("fanline.bus")


class NatsBus(StreamRequests, BucketRequests, PeerRequests):
    """See engine/bus/interface.py for the promises; made by `open_nats_bus` (opening.py)."""

    def __init__(self, options: NatsOptions, name: str, namespaces: Namespaces, bucket_bytes: int = -1) -> None:
        super().__init__()
        self._namespaces = namespaces
        self._where = options.describe()
        self.client = NatsClient(
            options,
            f"fanline {name}",
            on_open=self._on_open,
            on_lost=self._on_lost,
            on_complaint=self._on_complaint,
        )
        self._interest = SubjectInterest(self.client)
        self._whole = NamespaceInterest(self._interest)
        self._watches = BucketWatches(self._interest)
        self._deliver: Deliver = lambda channel, payload, position: None
        self._overhear: Deliver = lambda channel, payload, position: None
        self._on_loss: OnLoss = lambda _: None
        self._take_beat: Callable[[str], None] | None = None
        self._listeners: dict[str, NamespaceListener] = {}
        self._lost_since: float | None = None  # Unix seconds, while an outage has not been reported
        recall_key = partial(self.signatures.prepare, self)
        self.streams = StreamKeeper(self.api, namespaces, bucket_bytes, self._report_loss, recall_key)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS at the moment."""
        return self.client.connected

    # --- interest -------------------------------------------------------------------------------------------------

    def attach(
        self,
        deliver: Deliver,
        on_loss: OnLoss,
        after_burst: AfterBurst = lambda: None,
        overhear: Deliver = lambda channel, payload, position: None,
    ) -> None:
        self._deliver, self._on_loss, self._overhear = deliver, on_loss, overhear
        self.client.after_read = after_burst
        for namespace in self._namespaces.everywhere():
            durable = self._namespaces.of(f"{namespace}:").durable
            sink = self._take_stored if durable else self._take
            self._whole.want(self._subject(f"{namespace}:"), "everywhere", sink)

    def join(self, channel: str) -> None:
        namespace = self._namespaces.of(channel)
        if is_pattern(channel):
            self._whole.want(self._subject(channel), "pattern", self._overhear_all)
        elif not namespace.everywhere:
            self._interest.want(self._subject(channel), self._take_stored if namespace.durable else self._take)

    # Only subjects made by to_subject are subscribed, so channel_of needs no checks.
    def _take(self, message: NatsMessage) -> None:
        self._deliver(channel_of(message.subject), message.payload, None)

    def _take_stored(self, message: NatsMessage) -> None:
        if self._lost_since is not None:
            return  # accepted now, it would hide what was lost before it; everything is read once the loss is reported
        channel = channel_of(message.subject)
        position = self.signatures.position_of(channel, message) if message.headers else None  # one that is not stored
        self._deliver(channel, message.payload, position)

    def _overhear_all(self, message: NatsMessage) -> None:
        if self._lost_since is not None:
            return  # the loss is reported where it ends
        with suppress(MessageError):  # any client of NATS may publish on the subject of no channel
            channel = from_subject(message.subject)
            durable = self._namespaces.of(channel).durable
            is_stored = durable and bool(message.headers)
            position = self.signatures.position_of(channel, message) if is_stored else None
            self._overhear(channel, message.payload, position)

    def _subject(self, channel: str) -> str:
        """The subject on which a channel's messages arrive: one for all channels of a namespace that is subscribed to
        as a whole.
        """
        namespace = self._namespaces.of(channel)
        direction = Direction.OUT if namespace.durable else Direction.PUB
        if namespace.everywhere or is_pattern(channel):
            return namespace_subject(namespace_of(channel), direction)
        return to_subject(channel, direction)

    def is_joined(self, channel: str) -> bool:
        return self._interest.is_held(self._subject(channel))

    async def wait_joined(self, channel: str) -> None:
        await self._interest.wait(self._subject(channel))

    def leave(self, channel: str) -> None:
        if is_pattern(channel):
            self._whole.drop(self._subject(channel), "pattern")
        elif not self._namespaces.of(channel).everywhere:
            self._interest.drop(self._subject(channel))

    async def hear_namespace(self, namespace: str, listener: NamespaceListener | None) -> None:
        subject = namespace_subject(namespace, Direction.OUT)
        self._listeners.pop(namespace, None)
        if listener is not None:
            self._listeners[namespace] = listener
            self._whole.want(subject, "listener", self._hear)
            await self._interest.wait(subject)
        else:
            self._whole.drop(subject, "listener")

    def _hear(self, message: NatsMessage) -> None:
        if self._lost_since is not None:
            return  # as in `_take_stored`
        channel = channel_of(message.subject)
        listener = self._listeners.get(namespace_of(channel))
        if listener is not None and listener.wants(channel, sequence_of(message)):
            listener.take(Stored(channel, message.payload, self.signatures.position_of(channel, message)))

    async def answer(self, subject: str, take: Answerer | None, *, shared: bool = False) -> None:
        if take is None:
            self._interest.drop(subject)
            return
        queue = _WORKERS if shared else ""
        self._interest.want(subject, lambda asked: take(asked.payload, partial(self._reply, asked.reply)), queue)
        await self._interest.wait(subject)

    def _reply(self, subject: str, payload: bytes) -> None:
        if subject:
            self.tell(subject, payload)

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        self._take_beat = take
        if take is None:
            self._interest.drop(_BEATS)
        else:
            self._interest.want(_BEATS, self._hear_beat)

    def _hear_beat(self, beat: NatsMessage) -> None:
        try:
            channel = from_subject(beat.subject)
        except MessageError:
            return  # any client of NATS may publish there
        if self._take_beat is not None:
            self._take_beat(channel)

    async def kv_watch(self, bucket: Bucket, watcher: BucketWatcher) -> None:
        await self._watches.watch(bucket, watcher)

    def kv_is_watched(self, bucket: Bucket) -> bool:
        return self._watches.is_watched(bucket)

    def listen(self, subject: str, sink: Sink) -> None:
        """Have a sink called with what comes on a subject, soon and for as long as the bus is there."""
        self._interest.want(subject, sink)

    # --- sending --------------------------------------------------------------------------------------------------

    async def publish(self, channel: str, payload: bytes) -> None:
        await self._publish(to_subject(channel), payload)

    async def publish_live(self, channel: str, payload: bytes) -> None:
        durable = self._namespaces.of(channel).durable
        await self._publish(to_subject(channel, Direction.OUT if durable else Direction.PUB), payload)

    async def _publish(self, subject: str, payload: bytes) -> None:
        await self.wait_room(len(payload))
        self.send(subject, payload)
        await self.client.confirmation().wait_permitted(ComplaintKind.PUBLISH_DENIED, subject)

    def send(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = "") -> None:
        command, most = commands.publish(subject, payload, headers, reply=reply), self.client.info.max_payload
        if len(command) > most:  # maybe too large: then the server would end the connection, an outage for all clients
            size = len(payload) + commands.header_bytes(headers)
            if size > most:
                raise TooLargeError(f"{size} bytes with headers, but NATS takes {most}")
        if self.client.unsent_bytes + len(command) > MAX_UNSENT_BYTES:
            raise BusError("NATS does not keep up; nothing was done")
        self.client.send(command)

    async def wait_room(self, size: int) -> None:
        await self.client.wait_room(size)

    def has_room(self, size: int) -> bool:
        return self.client.connected and self.client.has_room(size)

    # --- life -----------------------------------------------------------------------------------------------------

    async def carry(self, scope: trio.CancelScope) -> None:
        """Carry the connection until the scope is cancelled."""
        with scope:
            await self.client.run()

    async def prepare(self) -> None:
        """Subscribe to what every worker receives, and create the streams. BusError if NATS cannot be used."""
        try:
            await self._prepare()
        except BusError as error:
            raise BusError(f"NATS at {self._where} cannot be used: {error}") from None

    async def _prepare(self) -> None:
        await self.open_inbox()
        self._interest.want(DELETED_STREAMS, self._take_advisory)
        await self._interest.wait(DELETED_STREAMS)
        await self.streams.prepare()
        await self.signatures.prepare(self)

    async def open_inbox(self) -> None:
        """Make requests possible. BusError."""
        _check_version(self.client.info.version)
        self.inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._interest.want(f"{self.inbox}.*", self.take_reply)
        await self._interest.wait(f"{self.inbox}.*")

    async def api(self, verb: str, stream: str, payload: bytes) -> dict[str, Any]:
        """The JetStream API's reply; `stream` may be "". JetStreamError, BusError."""
        ask = self.question if verb == "STREAM.INFO" else self.request
        try:
            (reply,) = await ask(f"$JS.API.{verb}.{stream}".rstrip("."), payload)
        except NoJetStreamError:
            raise BusError("JetStream is not enabled there") from None
        return api_reply(reply.payload)

    def _take_advisory(self, advisory: NatsMessage) -> None:
        """A stream was deleted: what is known of its channels no longer holds."""
        if advisory.subject.rpartition(".")[2] in map(stream_name, self._namespaces.durable()):
            self._on_loss(time.time())
            self.streams.check_soon()

    def _on_lost(self) -> None:
        self._lost_since = self._lost_since or self.client.sound_until
        self._watches.interrupted()
        self.fail_requests(BusError("NATS went away; it may have been done"))

    def _on_open(self) -> None:
        self._interest.renew()
        self.streams.check_soon()

    def _on_complaint(self, complaint: Complaint) -> None:
        _log.error("%s", complaint.text)
        if complaint.kind is ComplaintKind.PUBLISH_DENIED:
            self.fail_requests(BusError(complaint.text), complaint.subject)

    async def _report_loss(self) -> None:
        """Report an outage as soon as the subscriptions are back, without waiting for the streams."""
        if self._lost_since is not None:
            await self.client.confirmation().wait()
            _log.info("NATS connection is back")
            since, self._lost_since = self._lost_since, None
            self._on_loss(since)


def _check_version(found: str) -> None:
    version = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if version < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise BusError(f"it is version {found}; Fanline needs {wanted} or newer")
