"""Sending a history: at the pace at which the client reads, in turns with other long work, and encoded once for all
clients that join together.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from fanline.engine.channels.subscription import ChannelSubscription
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.slices import SMALL_BYTES, Turns
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope

SEND_BYTES = 256 * 1024
"""Bytes pushed at a time: less than the bound of an outbox, so a history never closes a connection for slowness."""
FRAMES_BYTES = 16 * 1024 * 1024
"""What the frames that joins share may take together."""
_OVERHEAD = 300  # bytes of an entry besides its frame


class _Kept(NamedTuple):
    """A frame, with the message itself: as long as it is kept, no other has its id."""

    envelope: Envelope
    previous: int | None
    epoch: str | None
    frame: bytes

    @property
    def is_current(self) -> bool:
        """Whether the message is still what it was: the log may have found what comes before it, or an epoch ended."""
        return (self.previous, self.epoch) == (self.envelope.previous, self.envelope.epoch)


class SharedFrames:
    """Frames of messages that were sent to joining clients lately, for those who join with them. Of one worker."""

    def __init__(self, most: int = FRAMES_BYTES) -> None:
        self._most = most
        self._kept: dict[tuple[int, Encoding], _Kept] = {}  # the longest unused first
        self._bytes = 0

    def of(self, encoding: Encoding, envelope: Envelope) -> bytes:
        """The frame of a message. For encodings in which making it costs more than keeping it."""
        key = (id(envelope), encoding)
        kept = self._kept.pop(key, None)
        if kept is not None and not kept.is_current:
            self._bytes -= len(kept.frame) + _OVERHEAD
            kept = None
        if kept is None:
            kept = _Kept(envelope, envelope.previous, envelope.epoch, encoding.encode(envelope))
            self._bytes += len(kept.frame) + _OVERHEAD
        self._kept[key] = kept
        while self._bytes > self._most:
            self._bytes -= len(self._kept.pop(next(iter(self._kept))).frame) + _OVERHEAD
        return kept.frame


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
            return
        while some := await self._turns.some(frames, SEND_BYTES, len):
            await self._push(subscription, some)

    def _frame(self, subscription: ChannelSubscription, message: Envelope) -> bytes:
        """The frame of a message; of what stands in its place if it cannot be encoded."""
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
        await self._wait_drained(subscription)  # of what other channels have brought meanwhile
        if frames:
            subscription.outbox.push(b"".join(frames))
            self._counters.deliveries += len(frames)
            await self._wait_drained(subscription)

    async def _wait_drained(self, subscription: ChannelSubscription) -> None:
        outbox = subscription.outbox
        if outbox.backlog_bytes:
            await outbox.wait_drained()
            outbox.life.extend(self._patience)  # it reads: it lives
