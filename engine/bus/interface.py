"""The bus: a few verbs between workers. Implementations: NatsBus, and MemoryBus, its twin for unit tests.

Promises, the same for both and held by tests/engine/bus/test_bus_contract.py:

- A message published by anybody after `wait_joined(channel)` has returned is delivered, until `leave(channel)`.
- Messages of one publisher on one channel are delivered in the order they were published, at most once.
- The publisher's own worker hears a message when it comes back from the bus, in the bus's order, as all others do.
- A channel of a durable namespace delivers what its stream has stored, in the stream's order, each with its position.
  The bus may lose some of it (a reconnect, a slow worker); `read` gets it back from the stream.
- `deliver` is called synchronously and must not raise; between two calls nothing else of the caller has run.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from fanline.protocol.nats.names import Bucket


class BusError(Exception):
    """The bus cannot do it now; str() is a sentence for a person."""


class StreamPosition(NamedTuple):
    """Where a stored message stands in its stream."""

    offset: int
    """Sequence in the stream, which is the offset in the channel: growing, not dense."""
    previous: int
    """Offset of the channel's message before it; 0 also when that one is no longer stored (docs: ADR 0006)."""
    time: str
    """When it was stored, RFC 3339."""


class Stored(NamedTuple):
    """A message as a stream holds it."""

    channel: str
    payload: bytes
    position: StreamPosition


class Page(NamedTuple):
    """Some of a channel's stored messages."""

    messages: list[Stored]
    """Oldest first."""
    more: int
    """How many stored messages of the channel come after these."""


class StreamState(NamedTuple):
    """What a durable namespace's stream holds at one moment."""

    epoch: str
    """Changes when the stream was made anew."""
    first: int
    """Offset of the oldest message it still holds; last + 1 if it is empty."""
    last: int
    """Offset of the newest message it ever held."""
    first_time: float
    """Unix seconds at which the oldest message it still holds was stored; infinity if it is empty."""
    size: int
    """Bytes it holds."""


class KvEntry(NamedTuple):
    """A value in a bucket."""

    value: bytes
    revision: int


class TooLargeError(BusError):
    """The message is larger than the bus takes, now and later."""


class NoListenerError(BusError):
    """Nobody listens there: nothing was done, and waiting would not help."""


class ConflictError(BusError):
    """The key has another revision by now: read it again."""


Deliver = Callable[[str, bytes, StreamPosition | None], None]
"""Called with (channel, payload, position) for each message; the place of an ephemeral one is None."""

OnLoss = Callable[[float], None]
"""Called after an outage with the Unix time until which the bus is known to have lost nothing."""


class Bus(Protocol):
    """What a worker sees of the others, and of the store."""

    def attach(self, deliver: Deliver, on_loss: OnLoss) -> None:
        """Name the one receiver of all joined channels, and who is told that messages may have been lost."""
        ...

    def join(self, channel: str) -> None:
        """Ask for a channel's messages; idempotent, takes effect soon."""
        ...

    async def wait_joined(self, channel: str) -> None:
        """Wait until a join is in effect at the bus; returns without a checkpoint if it already is. BusError at once if
        it is not and the bus is away.
        """
        ...

    def leave(self, channel: str) -> None:
        """Stop a channel's messages; idempotent, takes effect soon."""
        ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Hand an ephemeral message over to the bus, at most once; BusError when the bus is away or too far behind,
        TooLargeError.
        """
        ...

    async def store(self, channel: str, payload: bytes, message_id: str) -> int:
        """Store a durable message and return its offset, which is that of the first one if `message_id` is a repeat.

        BusError if the store has not said that it has it: then it may or may not be stored, and may be sent again.
        TooLargeError.
        """
        ...

    async def stream_state(self, channel: str) -> StreamState:
        """The state of the stream that holds a durable channel. BusError."""
        ...

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        """Channel -> offset of its newest stored message, for those (of one namespace) that have any. BusError."""
        ...

    async def read(self, channel: str, start: int) -> Page:
        """Stored messages of a channel from offset `start` on: READ_BATCH, or fewer if they are large. BusError."""
        ...

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        """The value of a key; None if there is none. BusError."""
        ...

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> None:
        """Set a key that has this revision now (0: that is not there). ConflictError if it has another; BusError."""
        ...

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        """Set a key whatever it holds, soon, without waiting to be told; lost if the bus is away."""
        ...

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float) -> None:
        """Set a key whatever it holds, to be forgotten after so many whole seconds without a change. Only for TASKS
        and RUNNING. BusError, TooLargeError.
        """
        ...

    async def kv_entries(self, bucket: Bucket) -> dict[str, bytes]:
        """All keys of a bucket with their values. BusError."""
        ...

    async def read_namespace(self, namespace: str, start: int) -> Page:
        """Stored messages of all channels of a durable namespace from offset `start` on, as `read` does. BusError."""
        ...

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        """Ask the producer that listens on a task's `ctl` subject, and return its answer.

        NoListenerError at once if nobody listens; BusError if there is no answer within so many seconds.
        """
        ...

    async def has_listener(self, channel: str) -> bool:
        """Whether a producer listens on a task's `ctl` subject; it gets a `ping` that needs no answer. BusError."""
        ...

    def hear_beats(self, take: Callable[[str], None] | None) -> None:
        """Call `take` with the channel for each beat on any `beat` subject from soon on; None: no more. `take` must
        not raise.
        """
        ...
