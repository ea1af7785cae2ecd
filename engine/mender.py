"""The mender: asks the streams where a durable channel stands, what this worker missed, and what a client missed.

The logs decide what follows on what (engine/channel_log.py); here is the waiting. Requests go out per channel, not per
client: whoever wants to know about the same channel waits for the same request and finds the log extended.
"""

import itertools
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import trio

from engine.bus import Bus, BusError, Place, Stored, StreamState
from engine.channel_log import ChannelLog, GapReason, LogState
from engine.hub import Hub
from engine.jetstream import MULTI_LAST, READ_BATCH, unix_ms_of
from engine.namespaces import Namespaces
from protocol.channels import namespace_of
from protocol.envelope import Envelope

_RETRY_SECONDS = 0.2
_CLOCK_SKEW = 1.0  # seconds by which the NATS server's clock may be behind ours
_PARALLEL = 32  # channels mended at a time
_log = logging.getLogger("fanline.mender")

Readable = tuple[Envelope | None, Place]


class History(NamedTuple):
    """Messages of a channel after an offset, oldest first; maybe not up to the newest, then ask again."""

    messages: list[Envelope]
    gap: Envelope | None = None
    """What may be gone between that offset and the first of them."""


class _Desk:
    """Where those wait who want something of one log."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.steady = trio.Event()


class _Asked:
    """Requests for the state of one stream."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.begun = 0
        self.answer: StreamState | None = None


class Mender:
    """One worker's. All its waiting survives an outage of the bus: it tries again until it knows, or nobody listens."""

    def __init__(self, bus: Bus, hub: Hub, namespaces: Namespaces, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._hub = hub
        self._namespaces = namespaces
        self._nursery = nursery
        self._desks: WeakKeyDictionary[ChannelLog, _Desk] = WeakKeyDictionary()
        self._asked: dict[str, _Asked] = {}
        self._epochs: dict[str, str] = {}  # namespace -> epoch, as last heard since the bus was away
        hub.on_hole = self._mend_soon

    async def wait_steady(self, log: ChannelLog) -> None:
        """Wait until a log hands out messages; the first to wait opens it. BusError if its stream cannot be asked."""
        async with self._desk(log).lock:
            if log.state is LogState.OPENING:
                await self._open(log)
        while log.state is not LogState.STEADY:
            await self._desk(log).steady.wait()

    async def _open(self, log: ChannelLog) -> None:
        newest = (await self._bus.last_offsets([log.channel])).get(log.channel)
        epoch = self._epochs.get(namespace_of(log.channel))
        if newest is None or epoch is None:
            state = await self._state(log.channel)
            newest, epoch = newest or state.last, state.epoch
        self._hub.deliver(log.channel, log.open(epoch, newest))
        if log.state is LogState.MENDING:
            self._mend_soon(log)

    async def _state(self, channel: str) -> StreamState:
        """The state of a channel's stream as of now or later. Whoever asks at the same time shares a request."""
        namespace = namespace_of(channel)
        asked = self._asked.setdefault(namespace, _Asked())
        mine = asked.begun
        async with asked.lock:
            if asked.answer is None or asked.begun == mine:  # no request has begun since we came
                asked.begun += 1
                asked.answer = await self._bus.stream_state(channel)
                self._epochs[namespace] = asked.answer.epoch
            return asked.answer

    async def history(self, log: ChannelLog, offset: int) -> History:
        """What a client that has everything up to `offset` needs next. BusError."""
        async with self._desk(log).lock:
            held = log.since(offset)
            if held is not None:
                return History(held)
            if log.bottom is not None and offset < log.bottom and log.floor < log.bottom:
                return History(log.since(log.floor) or [], _expired(log, offset, log.bottom - 1))
            return await self._look_back(log, offset)

    def bus_is_back(self, sound_until: float) -> None:
        """Messages may have been lost since `sound_until` (Unix seconds): hold every durable channel until it has been
        compared with its stream.
        """
        self._epochs.clear()
        for log in self._hub.logs():
            log.suspect()
        self._nursery.start_soon(self._compare_all, sound_until, name="compare")

    # --- looking back for a client ------------------------------------------------------------------------------

    async def _look_back(self, log: ChannelLog, offset: int) -> History:
        limit = self._namespaces.of(log.channel).history
        # One look from where this client is; if another client needs more, all there is, so that it is the last look.
        everything = limit <= READ_BATCH and log.floor != log.last
        state = await self._state(log.channel)
        found = await self._bus.read(log.channel, 1 if everything else max(1, offset))
        needed = [stored for stored in found if offset < stored.place.offset <= log.floor]
        reached = len(found) < READ_BATCH or found[-1].place.offset >= log.floor
        if everything and found:
            log.bottom = found[0].place.offset
        complete = (
            offset == 0
            or any(stored.place.offset == offset for stored in found)
            or (state.first <= offset + 1 and len(found) < limit)
        )
        start = offset if complete or not needed else needed[0].place.offset - 1
        gap = None if complete else _expired(log, offset, needed[0].place.offset - 1 if needed else log.floor)
        readable = [(self._read(stored), stored.place) for stored in needed]
        if not reached:
            return History(_chained(readable, start), gap)
        if complete or needed:
            log.extend_back(readable, start)
        return History(log.since(max(start, log.floor)) or [], gap)

    # --- mending what this worker missed ------------------------------------------------------------------------

    def _mend_soon(self, log: ChannelLog) -> None:
        self._nursery.start_soon(self._mend, log, time.time(), name="mend")

    async def _mend(self, log: ChannelLog, sound_until: float) -> None:
        """Bring a log up to its stream, trying until that is done or nobody listens any more."""
        while self._hub.log(log.channel) is log and log.state is LogState.MENDING:
            try:
                async with self._desk(log).lock:
                    await self._mend_once(log, sound_until)
            except BusError as error:
                _log.debug("cannot mend %s yet: %s", log.channel, error)
                await trio.sleep(_RETRY_SECONDS)
        self._told_steady(log)

    async def _mend_once(self, log: ChannelLog, sound_until: float) -> None:
        state = await self._state(log.channel)
        if state.epoch != log.epoch:
            _log.warning("the stream of %s was made anew", log.channel)
            self._hub.deliver(log.channel, log.restart(state.epoch))
        found = await self._read_all(log.channel, log.last + 1)
        lost_until = 0
        if not self._is_complete(log, state, len(found), sound_until):
            lost_until = found[0].place.offset - 1 if found else state.last
        readable = [(self._read(stored), stored.place) for stored in found]
        self._hub.deliver(log.channel, log.mend(readable, lost_until))

    def _is_complete(self, log: ChannelLog, state: StreamState, found: int, sound_until: float) -> bool:
        """Whether nothing that came after `log.last` can have left the stream. It drops the oldest first, for its age,
        for the size of the stream or for the number of messages in the channel; each has to be ruled out.
        """
        namespace = self._namespaces.of(log.channel)
        if state.first <= log.last + 1:
            return found < namespace.history
        young = time.time() - sound_until < namespace.max_age - _CLOCK_SKEW
        roomy = namespace.max_bytes < 0 or state.size < namespace.max_bytes // 2
        older_is_there = state.first_time < sound_until - _CLOCK_SKEW
        return found < namespace.history and ((young and roomy) or older_is_there)

    async def _compare_all(self, sound_until: float) -> None:
        """After an outage: ask which channels have moved, and mend only those."""
        logs = sorted((log for log in self._hub.logs() if log.state is LogState.MENDING), key=lambda log: log.channel)
        for _, group in itertools.groupby(logs, key=lambda log: namespace_of(log.channel)):
            members = list(group)
            for start in range(0, len(members), MULTI_LAST):
                await self._compare(members[start : start + MULTI_LAST], sound_until)

    async def _compare(self, logs: Sequence[ChannelLog], sound_until: float) -> None:
        """Compare channels of one namespace with their stream."""
        try:
            state = await self._state(logs[0].channel)
            newest = await self._bus.last_offsets([log.channel for log in logs])
        except BusError:
            moved = list(logs)  # each will try until it knows
        else:
            moved = []
            for log in logs:
                known = newest.get(log.channel)
                unmoved = known == log.last or (known is None and self._is_complete(log, state, 0, sound_until))
                if unmoved and state.epoch == log.epoch:
                    self._hub.deliver(log.channel, log.mend([], 0))
                    self._told_steady(log)
                if log.state is LogState.MENDING:
                    moved.append(log)
        limiter = trio.CapacityLimiter(_PARALLEL)
        for log in moved:
            self._nursery.start_soon(self._mend_limited, log, sound_until, limiter, name="mend")

    async def _mend_limited(self, log: ChannelLog, sound_until: float, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            await self._mend(log, sound_until)

    def _told_steady(self, log: ChannelLog) -> None:
        desk = self._desk(log)
        desk.steady.set()
        desk.steady = trio.Event()

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read_all(self, channel: str, start: int) -> list[Stored]:
        found: list[Stored] = []
        while batch := await self._bus.read(channel, start):
            found += batch
            start = batch[-1].place.offset + 1
            if len(batch) < READ_BATCH:
                break
        return found

    def _read(self, stored: Stored) -> Envelope | None:
        return self._hub.read_message(stored.channel, stored.payload, unix_ms_of(stored.place.time))

    def _desk(self, log: ChannelLog) -> _Desk:
        return self._desks.setdefault(log, _Desk())


def _expired(log: ChannelLog, offset: int, until: int) -> Envelope:
    return log.gap(offset + 1, max(offset + 1, until), GapReason.EXPIRED)


def _chained(readable: Sequence[Readable], previous: int) -> list[Envelope]:
    """Messages on their way from the stream to one client, each following on the one before."""
    chained = []
    for envelope, place in readable:
        if envelope is not None:
            envelope.offset, envelope.previous = place.offset, previous
            previous = place.offset
            chained.append(envelope)
    return chained
