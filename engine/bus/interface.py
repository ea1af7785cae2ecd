"""The bus: the few verbs with which a worker reaches the other workers and the store.

Implementations: NatsBus, and MemoryBus, its twin for unit tests. Both keep these promises, held by
tests/engine/bus/test_bus_contract.py and test_store_contract.py beside it:

- Every message published after `wait_joined(channel)` has returned is delivered, until `leave(channel)`.
- A namespace that is `everywhere` is delivered from soon after `attach` on, whatever is joined or left.
- `task:*` can be joined as a channel can: it stands for all channels of its namespace, whose messages then come to
  `overhear`, besides those of joined channels that come to `deliver`.
- Messages of one publisher on one channel are delivered in the order they were published, at most once.
- A worker gets its own messages when they come back from the bus, in the bus's order, as all other workers do.
- A channel of a durable namespace delivers what its stream has stored, in the stream's order, each message with its
  position. The bus may lose some of them (a reconnect, a slow worker); `read` gets them back from the stream.
- `deliver` and `overhear` are called synchronously and must not raise; the calls for one burst of messages follow each
  other without a task switch in between.

Where a docstring names only BusError (errors.py), the bus is unreachable or did not answer in time, and a requested
change may or may not have been made.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from fanline.engine.bus.stored import READ_BATCH, KvEntry, Page, StoreAck, Stored, StreamPosition, StreamState
from fanline.protocol.nats.names import Bucket

PING = b'{"v":1,"t":"ping"}'
"""What a producer is sent to find out whether it is attached; any reply means that it is."""
PING_SECONDS = 1.0
"""How long a producer has to answer it."""


class NamespaceListener(Protocol):
    """Receives all channels of a namespace. Both methods are called synchronously and must not raise."""

    def wants(self, channel: str, offset: int) -> bool:
        """Called with every message, in the order in which they arrive; whether `take` is to be called with it."""
        ...

    def take(self, stored: Stored) -> None:
        """Called at once with a message that is wanted."""
        ...


class BucketWatcher(Protocol):
    """Hears what changes in a bucket. Both methods are called synchronously and must not raise."""

    def changed(self, key: str, value: bytes) -> None:
        """This was stored just now. Other programs can say so as well: what a key holds is known by reading it."""
        ...

    def interrupted(self) -> None:
        """Changes may have been missed: what was read before may be out of date."""
        ...


Deliver = Callable[[str, bytes, StreamPosition | None], None]
"""Called with (channel, payload, position) for each message; an ephemeral message has no position."""

Respond = Callable[[bytes], None]
"""Sends an answer, at once or later; it is lost if the bus is away."""

Answerer = Callable[[bytes, Respond], None]
"""Called with whatever is asked or told on a subject; must not raise. The answer to a `tell` goes nowhere."""

AfterBurst = Callable[[], None]
"""Called when a burst of messages has been delivered, still without a task switch."""

OnLoss = Callable[[float], None]
"""Called after an outage with the Unix time (seconds) up to which the bus is known to have lost nothing."""


class Bus(Protocol):
    """What a worker can ask the other workers, producers and the store."""

    # --- live messages ------------------------------------------------------------------------------------------

    def attach(
        self,
        deliver: Deliver,
        on_loss: OnLoss,
        after_burst: AfterBurst = lambda: None,
        overhear: Deliver = lambda channel, payload, position: None,
    ) -> None:
        """Set the one receiver of all joined channels, that of all joined namespaces, and the callback for messages
        that may have been lost. To be called before the first `join`.
        """
        ...

    def join(self, channel: str) -> None:
        """Ask for a channel's messages; idempotent, takes effect soon."""
        ...

    def is_joined(self, channel: str) -> bool:
        """Whether a join is known to be in effect at the bus."""
        ...

    async def wait_joined(self, channel: str) -> None:
        """Wait until a join is in effect at the bus. Returns without a checkpoint if it already is; BusError at once if
        it is not and the bus is away.
        """
        ...

    def leave(self, channel: str) -> None:
        """Stop a channel's messages; idempotent, takes effect soon."""
        ...

    async def hear_namespace(self, namespace: str, listener: NamespaceListener | None) -> None:
        """Have a listener receive all channels of a durable namespace, whatever is joined; None ends it.

        Returns when it is in effect; BusError if the bus is unreachable: then it takes effect once the bus is back. The
        stream numbers its messages without gaps, so the listener sees from the offsets whether one was lost.
        """
        ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Hand an ephemeral message to the bus, which delivers it at most once, and wait until the bus has it.

        TooLargeError: nothing was done. BusError if the bus is away, denies it or is too far behind; if it goes away
        meanwhile, the message may have been delivered.
        """
        ...

    async def publish_live(self, channel: str, payload: bytes) -> None:
        """The same for a message of the engine that is stored nowhere, not even in a durable namespace: it reaches the
        current subscribers of the channel, without a position. Not for namespaces of tasks.
        """
        ...

    # --- streams ------------------------------------------------------------------------------------------------

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        """Store a durable message; within two minutes a stream stores each `store_id` only once.

        `signed`: as the engine's own; it needs a store id, which is then compared with those of signed messages alone.

        `last`: only if this is the offset of the channel's newest stored message (0: there is none); ConflictError if
        it is not. BusError if the store has not confirmed the message: it may or may not be stored, and may be sent
        again under the same store id. TooLargeError.
        """
        ...

    async def stream_state(self, channel: str) -> StreamState:
        """The state of the stream that holds a durable channel. BusError."""
        ...

    async def check_writable(self, namespace: str) -> None:
        """Raises BusError or StorageFullError if the stream of a durable namespace takes no messages now. Nothing is
        stored: that the whole store is full shows only in a real write.
        """
        ...

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        """Channel -> offset of its newest stored message, without the channels that have none. All channels belong to
        one durable namespace. BusError.
        """
        ...

    async def read(self, channel: str, start: int, most: int = READ_BATCH) -> Page:
        """Stored messages of a channel from offset `start` on: `most` (1 to READ_BATCH) of them, or fewer if large.

        BusError.
        """
        ...

    async def read_one(self, channel: str, offset: int) -> Stored | None:
        """The stored message of a channel at this very offset; None if there is none (any more). BusError."""
        ...

    async def read_namespace(self, namespace: str, start: int) -> Page:
        """Stored messages of all channels of a durable namespace from offset `start` on, as `read` does. BusError.

        Their `previous` is that of their channel, or a later one: what comes before them may not be in the page.
        """
        ...

    # --- buckets ------------------------------------------------------------------------------------------------

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        """The entry of a key; None if there is none. BusError."""
        ...

    async def kv_get_many(self, bucket: Bucket, keys: Sequence[str]) -> dict[str, KvEntry]:
        """Key -> entry, without the keys that have none; MULTI_LAST keys at most. BusError."""
        ...

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        """Set a key whose revision is `revision` (0: the key does not exist), and return its new one. ConflictError if
        it has another one; BusError.
        """
        ...

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, revision: int | None = None) -> int:
        """Set a key, and return its revision; it expires `seconds` seconds (rounded up to whole ones) after its last
        change. Only for TASKS, RUNNING, REVOKED, WORKERS, ITEMS and NOTIFIED.

        `revision`: only if the key has this one, as `kv_update` does; ConflictError if it has not. BusError,
        TooLargeError.
        """
        ...

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Set a key whatever its revision, soon, without waiting for a confirmation; lost if the bus is away."""
        ...

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        """Key -> entry, without those whose value is empty. BusError.

        `prefix`: only of the keys that begin with it and a dot; `after`: only entries with a higher revision.
        """
        ...

    async def kv_page(self, bucket: Bucket, after: int, most: int) -> dict[str, KvEntry]:
        """Key -> entry of the first entries with a higher revision than `after`, in the order of their revisions, with
        those whose value is empty: `most` (1 to READ_BATCH), or fewer if they are large; none at the end. BusError.
        """
        ...

    async def kv_watch(self, bucket: Bucket, watcher: BucketWatcher) -> None:
        """Have a watcher hear of each change once it is stored. Only for API_KEYS and WORKERS.

        Returns when it is in effect; BusError if the bus is away: then it takes effect once the bus is back.
        """
        ...

    def kv_is_watched(self, bucket: Bucket) -> bool:
        """Whether the bus is known to pass the changes on. In a cluster of NATS servers, one of them may still die
        between storing a change and passing it on, and nobody notices.
        """
        ...

    # --- other processes of the cluster --------------------------------------------------------------------------

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """Ask on a subject, and return the first answer.

        NoListenerError at once if there is no listener; LateError if there is no answer within `seconds` seconds;
        BusError.
        """
        ...

    async def ask_all(self, subject: str, payload: bytes, seconds: float, count: int) -> list[bytes]:
        """Ask all who answer on a subject: the answers that arrive within `seconds` seconds, `count` at most.

        BusError; then the answers so far are dropped.
        """
        ...

    def tell(self, subject: str, payload: bytes) -> None:
        """Tell all who listen on a subject, soon and without a confirmation; lost if the bus is away."""
        ...

    def tell_if_room(self, subject: str, payload: bytes, store_id: str | None = None) -> bool:
        """The same for what can be done without: False, and nothing is done, if so much waits to be sent that
        publications wait, too. `store_id`: of two messages with the same one, a stream that listens stores one.
        """
        ...

    async def answer(self, subject: str, take: Answerer | None, *, shared: bool = False) -> None:
        """Have whatever is asked or told on a subject answered; None ends it. A subject has one answerer in a worker.
        `shared`: any one of all workers is asked; otherwise all are.

        Returns when it is in effect; BusError if the bus is away: then it takes effect once the bus is back.
        """
        ...

    # --- producers of tasks -------------------------------------------------------------------------------------

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        """Ask the producer that listens on a task's `ctl` subject, and return its answer.

        NoListenerError at once if none listens; BusError if there is no answer within `seconds` seconds.
        """
        ...

    async def has_producer(self, channel: str) -> bool:
        """Whether a producer answers PING on a task's `ctl` subject within PING_SECONDS; False at once if nothing
        listens there. A subscriber that only listens, such as an operator's `nats sub`, is no producer. BusError.
        """
        ...

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        """From soon on, call `take` with the channel for each beat on any `beat` subject; None stops it. `take` must
        not raise.
        """
        ...
