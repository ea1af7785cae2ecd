"""History: what the client of a durable channel lacks, from the log or else from the stream.

Requests go out per channel, not per client: those who want to know about the same channel wait for the same request,
and find the log extended.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fanline.engine.bus.interface import READ_BATCH, Bus, BusError, Page
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.log import Readable
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.messages import MessageReader
from fanline.protocol.envelope import Envelope
from fanline.protocol.messages import GapReason


class Piece(NamedTuple):
    """A piece of a channel's history; maybe not up to the newest message yet, then ask again."""

    messages: list[Envelope]
    """Oldest first."""
    reached: int
    """With them the client has everything up to here."""
    gap: Envelope | None = None
    """What may be gone between the offset that was asked for and the first of them."""

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

    async def after(self, channel: DurableChannel, offset: int) -> Piece:
        """What a client that has everything up to `offset` needs next. BusError.

        Returns without a checkpoint after the log was looked at.
        """
        log = channel.log
        async with channel.asking:
            held = log.since(offset)
            if held is not None:
                return Piece(held, log.last)
            if channel.bottom is not None and offset < channel.bottom and log.floor <= channel.bottom:
                messages = log.all()
                first = messages[0].offset or 0 if messages else log.last + 1
                return Piece(messages, log.last, _expired(channel, offset, first - 1))
            return await self._look_back(channel, offset)

    async def _look_back(self, channel: DurableChannel, offset: int) -> Piece:
        """Read what a client needs from the stream, and keep it for the next client if it reaches the log."""
        log = channel.log
        floor = log.floor  # it rises meanwhile if messages come faster than the stream answers
        page, everything = await self._read_back(channel, offset)
        state = await self._states.now(channel.name)
        if state.epoch != channel.epoch:
            self._recovery.recover_soon(channel)
            raise BusError(f"the stream of {channel.name} was recreated; try again")
        newest = page.messages[-1].position.offset if page.messages else 0
        reached = min(newest if page.more else max(newest, floor), log.floor)
        older = [stored for stored in page.messages if stored.position.offset <= reached]
        first = older[0].position.offset if older else reached + 1
        sound = self._sound_from(channel, page, first, state.first)
        gap = None if sound <= offset else _expired(channel, offset, first - 1)
        readable = [(self._reader.read_stored(stored), stored.position) for stored in older]
        if reached < log.floor:
            return Piece(_chained(readable, offset), reached, gap)
        newer = log.all()
        log.extend_back(readable, sound if everything else max(sound, offset))
        if everything:
            channel.bottom = sound
        wanted = [envelope for envelope, at in readable if envelope is not None and at.offset > offset]
        return Piece(wanted + newer, log.last, gap)

    def _sound_from(self, channel: DurableChannel, page: Page, first: int, stream_first: int) -> int:
        """The offset from which on nothing can have left the stream. It drops the oldest messages first: for the length
        of the channel only when that is full, and otherwise whatever came before the stream's first message.
        """
        full = len(page.messages) + page.more >= channel.namespace.history
        return first - 1 if full else min(first, stream_first) - 1

    async def _read_back(self, channel: DurableChannel, offset: int) -> tuple[Page, bool]:
        """What the stream has from this client's offset on; if another client needs more, everything there is, so that
        this is the last look. And whether it is everything.
        """
        if channel.log.floor != channel.log.last and channel.namespace.history <= READ_BATCH:
            page = await self._bus.read(channel.name, 1)
            if not page.more:
                return page, True
        return await self._bus.read(channel.name, max(1, offset)), False


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
