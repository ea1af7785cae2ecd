"""History: what the client of a durable channel lacks, from the log or else from the stream.

Requests go out per channel, not per client: clients of the same channel wait for the same request, and then find the
log extended, or the page that was read.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import READ_BATCH, Page, Stored
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.log import LogPart, Readable, stored_offset
from fanline.engine.channels.durable.log_budget import up_to
from fanline.engine.channels.durable.pages import HistoryPage, RecentPages
from fanline.engine.channels.durable.recovery import Recovery, read_on
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.messages import MessageReader
from fanline.protocol.envelope import Envelope
from fanline.protocol.messages.notices import GapReason

PIECE_BYTES = 1024 * 1024
"""A piece of a history ends with the message that makes it this long. A client is sent one piece, as fast as it reads,
before the next one is fetched, so this is what a join holds in memory besides what all joins share.
"""
_READS = 8  # pages on their way from the stream at a time
_WAIT_SECONDS = 15.0  # for one of them; more than the bus takes to fail


class Piece(NamedTuple):
    """A piece of a channel's history; maybe not up to the newest message yet, then ask again."""

    messages: list[Envelope]
    """Oldest first."""
    reached: int
    """With them the client has everything up to here."""
    gap: Envelope | None = None
    """What may be gone between the offset that was asked for and the first of them."""
    weight: int = 0
    """Bytes of memory that the messages take, about."""

    @property
    def all(self) -> list[Envelope]:
        """The messages, behind their gap if there is one."""
        return self.messages if self.gap is None else [self.gap, *self.messages]


class History:
    """Of one worker's durable channels."""

    def __init__(self, bus: Bus, states: StreamStates, reader: MessageReader, recovery: Recovery) -> None:
        self._bus = bus
        self._states = states
        self._reader = reader
        self._recovery = recovery
        self._pages = RecentPages()
        self._reading = trio.CapacityLimiter(_READS)

    async def after(self, channel: DurableChannel, offset: int) -> Piece:
        """What a client that has everything up to `offset` needs next. BusError.

        Returns without a checkpoint after the log was looked at.
        """
        log = channel.log
        async with channel.asking:
            part = log.after(offset, PIECE_BYTES)
            if part is not None:
                return _piece(part)
            if channel.bottom is not None and offset < channel.bottom and log.floor <= channel.bottom:
                gap = _expired(channel, offset, log.first - 1)
                return _piece(log.after(log.floor, PIECE_BYTES), gap)
            page = self._pages.find(channel, offset)
            if page is not None:
                return _piece_of(page, offset)
            await self._begin_reading()
            try:
                return await self._look_back(channel, offset)
            finally:
                self._reading.release()

    async def _begin_reading(self) -> None:
        """Wait until another page may be on its way. BusError."""
        with trio.move_on_after(_WAIT_SECONDS):
            await self._reading.acquire()
            return
        raise BusError("too many histories are being read; try again")

    async def _look_back(self, channel: DurableChannel, offset: int) -> Piece:
        """Read what a client needs from the stream, and keep it for the next one: in the log if it reaches the log, and
        there is room for it.
        """
        log = channel.log
        floor = log.floor
        page, everything = await self._read_back(channel, offset)
        state = await self._states.now(channel.name)
        if state.epoch != channel.epoch:
            self._recovery.recover_soon(channel)
            raise BusError(f"the stream of {channel.name} was recreated; try again")
        found = _judge(channel, page, floor, state.first)
        readable = await self._reader.read_page(found.older)
        if found.reached >= log.floor:
            log.extend_back(readable, found.sound if everything else max(found.sound, offset))
            if everything:
                channel.bottom = found.sound
            part = log.after(max(found.sound, offset), PIECE_BYTES)
            if part is not None:
                return _piece(part, None if found.sound <= offset else _expired(channel, offset, found.first - 1))
        start = 0 if everything else offset
        messages = _chained(readable, start)
        kept = HistoryPage(channel, channel.lives, start, found.reached, found.first, found.sound, messages)
        self._pages.add(kept)
        return _piece_of(kept, offset)

    async def _read_back(self, channel: DurableChannel, offset: int) -> tuple[Page, bool]:
        """What the stream has from this client's offset on; if another client needs more, everything there is, so that
        this is the last look. And whether it is everything.
        """
        log = channel.log
        if log.floor != log.last and channel.namespace.history <= READ_BATCH and not self._pages.has(channel):
            page = await read_on(self._bus, channel.name, min(1, offset))
            if not page.more or offset <= 1:
                return page, not page.more
        return await read_on(self._bus, channel.name, offset), False


def _piece(part: LogPart | None, gap: Envelope | None = None) -> Piece:
    assert part is not None, "a log reaches back to its own floor"
    return Piece(part.messages, part.reached, gap, part.weight)


def _piece_of(page: HistoryPage, offset: int) -> Piece:
    """What a client that has everything up to `offset` needs next of a page."""
    start = bisect_right(page.messages, offset, key=stored_offset)
    messages, weight = up_to(islice(page.messages, start, None), PIECE_BYTES)
    is_all = start + len(messages) == len(page.messages)
    gap = None if page.sound <= offset else _expired(page.channel, offset, page.first - 1)
    return Piece(messages, page.reached if is_all else stored_offset(messages[-1]), gap, weight)


class _Found(NamedTuple):
    """What reading the stream has shown about the time before a log begins."""

    older: list[Stored]
    """The messages that are not in the log, oldest first."""
    first: int
    """Offset of the first of them; of what comes after them if there are none."""
    reached: int
    """With them, everything up to here is known: the log's floor, or less if more has to be read."""
    sound: int
    """No message after this offset, up to `reached`, has left the stream."""


def _judge(channel: DurableChannel, page: Page, floor: int, stream_first: int) -> _Found:
    """What a page of a channel says. `floor`: that of the log before the stream was asked; it rises meanwhile if
    messages come faster than the stream answers. `stream_first`: offset of the oldest message of the whole stream.
    """
    newest = page.messages[-1].position.offset if page.messages else 0
    reached = min(newest if page.more else max(newest, floor), channel.log.floor)
    older = [stored for stored in page.messages if stored.position.offset <= reached]
    first = older[0].position.offset if older else reached + 1
    # A stream drops the oldest messages first: for the length of the channel only when that is full, and otherwise
    # whatever came before the stream's own first message.
    full = len(page.messages) + page.more >= channel.namespace.history
    return _Found(older, first, reached, first - 1 if full else min(first, stream_first) - 1)


def _expired(channel: DurableChannel, offset: int, until: int) -> Envelope:
    return channel.gap(offset + 1, until, GapReason.EXPIRED)


def _chained(readable: Sequence[Readable], offset: int) -> list[Envelope]:
    """Those after an offset, on their way from the stream to one client, each following on the one before."""
    chained = []
    for envelope, position in readable:
        if envelope is not None and position.offset > offset:
            envelope.offset, envelope.previous = position.offset, offset
            offset = position.offset
            chained.append(envelope)
    return chained
