"""One worker's bus in memory."""

import math
from collections.abc import Callable, Sequence

import trio

from fanline.engine.bus.errors import BusError, ConflictError, LateError, NoListenerError, TooLargeError
from fanline.engine.bus.interface import (
    PING,
    PING_SECONDS,
    AfterBurst,
    Answerer,
    BucketWatcher,
    Deliver,
    NamespaceListener,
    OnLoss,
)
from fanline.engine.bus.memory.broker import MemoryBroker
from fanline.engine.bus.memory.stream import MemoryStream
from fanline.engine.bus.stored import READ_BATCH, KvEntry, Page, StoreAck, Stored, StreamPosition, StreamState
from fanline.protocol.channels import namespace_of, pattern_of
from fanline.protocol.nats.names import Bucket


class MemoryBus:
    """One worker's bus; buses with the same broker reach each other."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self.broker.buses.append(self)
        self._joined: set[str] = set()
        self._deliver: Deliver | None = None
        self.on_loss: OnLoss = lambda _: None
        self._after_burst: AfterBurst = lambda: None
        self._overhear: Deliver = lambda channel, payload, position: None
        self.answerers: dict[str, Answerer] = {}
        self._take_beat: Callable[[str], None] | None = None
        self._listeners: dict[str, NamespaceListener] = {}
        self.watchers: dict[Bucket, BucketWatcher] = {}
        self.reads = 0
        """Calls of `read` so far."""

    def attach(
        self,
        deliver: Deliver,
        on_loss: OnLoss,
        after_burst: AfterBurst = lambda: None,
        overhear: Deliver = lambda channel, payload, position: None,
    ) -> None:
        self._deliver, self.on_loss, self._after_burst, self._overhear = deliver, on_loss, after_burst, overhear

    def join(self, channel: str) -> None:
        self._joined.add(channel)

    def is_joined(self, channel: str) -> bool:
        return self.broker.available and channel in self._joined

    async def wait_joined(self, channel: str) -> None:
        assert channel in self._joined or self.broker.namespaces.of(channel).everywhere

    def leave(self, channel: str) -> None:
        self._joined.discard(channel)

    def hand_over(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        """Deliver one message to this worker if it has joined the channel, or the whole namespace."""
        heard = channel in self._joined or self.broker.namespaces.of(channel).everywhere
        if heard and self._deliver is not None:
            self._deliver(channel, payload, position)
        if pattern_of(channel) in self._joined:
            self._overhear(channel, payload, position)
        self._after_burst()

    async def hear_namespace(self, namespace: str, listener: NamespaceListener | None) -> None:
        self._listeners.pop(namespace, None)
        if listener is not None:
            self._listeners[namespace] = listener
        await self._reach_broker()

    def tell_listener(self, stored: Stored) -> None:
        """Hand one message to the listener of a namespace."""
        listener = self._listeners.get(namespace_of(stored.channel))
        if listener is not None and listener.wants(stored.channel, stored.position.offset):
            listener.take(stored)

    async def publish(self, channel: str, payload: bytes) -> None:
        """As for producers, a durable channel's message is stored, and delivered with its position."""
        if self.broker.namespaces.of(channel).durable:
            await self.store(channel, payload)
        else:
            await self.publish_live(channel, payload)

    async def publish_live(self, channel: str, payload: bytes) -> None:
        await self._reach_broker()
        self._check_size(payload)
        for bus in self.broker.buses:
            bus.hand_over(channel, payload, None)

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        assert store_id or not signed
        await self._reach_broker()
        self._check_size(payload)
        if last is not None and (self._stream(channel).newest(channel) or 0) != last:
            raise ConflictError(f"{channel} has newer messages")
        compared = f"{store_id}/signed" if signed else store_id
        stored, offset = self._stream(channel).append(channel, payload, compared, signed=signed)
        for bus in self.broker.buses if stored else ():
            bus.hand_over(channel, payload, stored.position if stored else None)
            if stored:
                bus.tell_listener(stored)
        return StoreAck(offset, stored is None)

    async def stream_state(self, channel: str) -> StreamState:
        await self._reach_broker()
        return self._stream(channel).state()

    async def check_writable(self, namespace: str) -> None:
        await self._reach_broker()

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        await self._reach_broker()
        newest = ((channel, self._stream(channel).newest(channel)) for channel in channels)
        return {channel: offset for channel, offset in newest if offset is not None}

    async def read(self, channel: str, start: int, most: int = READ_BATCH) -> Page:
        await self._reach_broker()
        self.reads += 1
        return self._stream(channel).read(channel, start, most)

    async def read_one(self, channel: str, offset: int) -> Stored | None:
        await self._reach_broker()
        found = self._stream(channel).read(channel, offset).messages[:1]
        return found[0] if found and found[0].position.offset == offset else None

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        await self._reach_broker()
        return self.broker.find(bucket, key)

    async def kv_get_many(self, bucket: Bucket, keys: Sequence[str]) -> dict[str, KvEntry]:
        await self._reach_broker()
        found = {key: self.broker.find(bucket, key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        await self._reach_broker()
        self.broker.check(bucket, key, revision)
        return self.broker.write(bucket, key, value)

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        if self.broker.available:
            self.broker.write(bucket, key, value)

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, revision: int | None = None) -> int:
        await self._reach_broker()
        self._check_size(value)
        if revision is not None:
            self.broker.check(bucket, key, revision)
        return self.broker.write(bucket, key, value, math.ceil(seconds))

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        await self._reach_broker()
        start = f"{prefix}." if prefix else ""
        keys = [key for held, key in self.broker.buckets if held is bucket and key.startswith(start)]
        found = {key: self.broker.find(bucket, key) for key in keys}
        return {key: entry for key, entry in found.items() if entry and entry.value and entry.revision > after}

    async def kv_page(self, bucket: Bucket, after: int, most: int) -> dict[str, KvEntry]:
        await self._reach_broker()
        keys = [key for held, key in self.broker.buckets if held is bucket]
        found = [(key, entry) for key in keys if (entry := self.broker.find(bucket, key)) and entry.revision > after]
        return dict(sorted(found, key=lambda each: each[1].revision)[:most])

    async def kv_watch(self, bucket: Bucket, watcher: BucketWatcher) -> None:
        self.watchers[bucket] = watcher
        await self._reach_broker()

    def kv_is_watched(self, bucket: Bucket) -> bool:
        return self.broker.available and bucket in self.watchers

    async def read_namespace(self, namespace: str, start: int) -> Page:
        await self._reach_broker()
        return self.broker.streams[namespace].read(None, start)

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        answers = await self._ask(subject, payload, seconds, 1)
        if answers is None:
            raise NoListenerError(f"nobody answers on {subject}")
        if not answers:
            raise LateError(f"no answer on {subject} within {seconds:g} s")
        return answers[0]

    async def ask_all(self, subject: str, payload: bytes, seconds: float, count: int) -> list[bytes]:
        return await self._ask(subject, payload, seconds, count) or []

    async def _ask(self, subject: str, payload: bytes, seconds: float, count: int) -> list[bytes] | None:
        """The answers; None if there is no listener."""
        await self._reach_broker()
        answers, complete = list[bytes](), trio.Event()

        def reply(answer: bytes) -> None:
            answers.append(answer)
            if len(answers) >= count:
                complete.set()

        answerers = self.broker.answerers(subject)
        for take in answerers:
            take(payload, reply)
        with trio.move_on_after(seconds):
            if answerers:
                await complete.wait()
        return answers[:count] if answerers else None

    def tell(self, subject: str, payload: bytes) -> None:
        for take in self.broker.answerers(subject):
            take(payload, lambda _: None)

    def tell_if_room(self, subject: str, payload: bytes, store_id: str | None = None) -> bool:
        self.tell(subject, payload)
        return True

    async def answer(self, subject: str, take: Answerer | None, *, shared: bool = False) -> None:
        if take is None:
            self.answerers.pop(subject, None)
        else:
            self.answerers[subject] = take
        if shared:
            self.broker.shared.add(subject)
        await self._reach_broker()

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        await self._reach_broker()
        listener = self.broker.listeners.get(channel)
        if listener is None:
            raise NoListenerError(f"no producer is attached to {channel}")
        with trio.move_on_after(seconds):
            return await listener(payload)
        raise LateError(f"the producer of {channel} did not answer within {seconds:g} s")

    async def has_producer(self, channel: str) -> bool:
        await self._reach_broker()
        listener = self.broker.listeners.get(channel)
        with trio.move_on_after(PING_SECONDS):
            if listener is not None:
                await listener(PING)
                return True
        return False

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        self._take_beat = take

    def hear(self, channel: str) -> None:
        """Deliver one beat to this worker."""
        if self._take_beat is not None:
            self._take_beat(channel)

    def _stream(self, channel: str) -> MemoryStream:
        return self.broker.streams[namespace_of(channel)]

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self.broker.max_payload:
            raise TooLargeError(f"{len(payload)} bytes, but the broker takes {self.broker.max_payload}")

    async def _reach_broker(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.broker.available:
            raise BusError("the broker is away; nothing was done")
