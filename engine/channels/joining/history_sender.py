"""Sending a history: at the pace at which the client reads, in turns with other long work, and encoded once for all
clients that join together.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import trio

from fanline.engine.channels.subscription import ChannelSubscription
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import SMALL_BYTES, Turns
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.ack_pings import ack_ping

SEND_BYTES = 256 * 1024
"""Bytes pushed at a time: less than the bound of an outbox, so a history never closes a connection for slowness."""
FRAMES_BYTES = 16 * 1024 * 1024
"""Bytes that the frames shared by joins may take together."""
FRAMES_SECONDS = 20.0
"""For how long a frame is kept that no join has used: clients join together, or have to make their own."""
_OVERHEAD = 300  # bytes of an entry besides its frame


class _Kept(NamedTuple):
    """A frame, with the message itself: as long as it is kept, no other has its id."""

    envelope: Envelope
    previous: int | None
    epoch: str | None
    frame: bytes
    used: float
    """When it was last used, in seconds of Trio's clock."""

    @property
    def is_current(self) -> bool:
        """Whether the message is still what it was: the log may have found what comes before it, or an epoch ended."""
        return (self.previous, self.epoch) == (self.envelope.previous, self.envelope.epoch)


class SharedFrames:
    """Frames of messages that were sent to joining clients lately, for those who join with them. Of one worker.
    `clock`: seconds.
    """

    def __init__(self, most: int = FRAMES_BYTES, clock: Callable[[], float] = trio.current_time) -> None:
        self._most = most
        self._clock = clock
        self._kept: dict[tuple[int, Encoding], _Kept] = {}  # the longest unused first
        self._bytes = 0

    def of(self, encoding: Encoding, envelope: Envelope) -> bytes:
        """The frame of a message. For encodings in which making it costs more than keeping it."""
        key = (id(envelope), encoding)
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.frame) + _OVERHEAD
        now = self._clock()
        frame = kept.frame if kept is not None and kept.is_current else encoding.encode(envelope)
        self._kept[key] = _Kept(envelope, envelope.previous, envelope.epoch, frame, now)
        self._bytes += len(frame) + _OVERHEAD
        self._forget(now - FRAMES_SECONDS)
        return frame

    def _forget(self, unused_since: float) -> None:
        """Drop frames that take too much room, and frames that have not been used for long."""
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if self._bytes <= self._most and oldest.used >= unused_since:
                return
            del self._kept[key]
            self._bytes -= len(oldest.frame) + _OVERHEAD


class HistorySender:
    """Sends histories to the clients of one worker. `patience`: seconds of life that a client proves by reading."""

    def __init__(self, counters: Counters, faults: Faults, turns: Turns, *, patience: float) -> None:
        self._counters = counters
        self._faults = faults
        self._turns = turns
        self._patience = patience
        self._frames = SharedFrames()

    async def send(self, subscription: ChannelSubscription, messages: Sequence[Envelope], weight: int) -> None:
        """Push messages that take about `weight` bytes; returns when the kernel has taken them."""
        frames = map(partial(self._frame, subscription), messages)
        if weight <= SMALL_BYTES:
            await self._push(subscription, list(frames))
        else:
            while some := await self._turns.some(frames, SEND_BYTES, len):
                await self._push(subscription, some)
        if subscription.channel.namespace.inbox and subscription.encoding.dialect.is_plain:
            last = next((each.offset for each in reversed(messages) if each.offset is not None), None)
            if last is not None:
                subscription.outbox.push(ack_ping(subscription.channel.name, last))

    def _frame(self, subscription: ChannelSubscription, message: Envelope) -> bytes:
        """The frame of a message, or of its substitute if it cannot be encoded."""
        encoding, channel = subscription.encoding, subscription.channel
        try:
            return self._frames.of(encoding, message) if encoding.costly else encoding.encode(message)
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report(channel.name, "a message cannot be encoded")
            frames: list[bytes] = []
            with suppress(Exception):  # the snapshot may be as bad
                frames.extend(encoding.encode(substitute) for substitute in channel.substitutes(message))
            return b"".join(frames)

    async def _push(self, subscription: ChannelSubscription, frames: Sequence[bytes]) -> None:
        await self.wait_read(subscription.outbox)  # of what other channels have queued meanwhile
        if frames:
            data = b"".join(frames)
            subscription.outbox.push(data)
            subscription.outbox.answered += len(data)
            self._counters.deliveries += len(frames)
            await self.wait_read(subscription.outbox)

    async def wait_read(self, outbox: Outbox) -> None:
        """Wait until the client has read what it was sent, except for what the kernel holds."""
        if outbox.backlog_bytes:
            await outbox.wait_drained()
            outbox.life.extend(self._patience)  # it reads: it lives
