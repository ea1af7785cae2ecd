"""The recovery: asks the streams where a durable channel stands, what this worker missed, and what a client missed.

The logs decide what follows on what (engine/channels/log.py); here is the waiting. Requests go out per channel, not per
client: whoever wants to know about the same channel waits for the same request and finds the log extended.
"""

import itertools
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import trio

from fanline.engine.bus.interface import Bus, BusError, Page, Stored, StreamPosition, StreamState
from fanline.engine.bus.nats.jetstream import MULTI_LAST, READ_BATCH, unix_ms_of
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.log import ChannelLog, GapReason, LogState
from fanline.engine.channels.stream_states import StreamStates
from fanline.engine.channels.task_frames import with_snapshot
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.fold import restore
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope

_RETRY_SECONDS = 0.2
_CLOCK_SKEW = 1.0  # seconds by which the NATS server's clock may be behind ours
_PARALLEL = 32  # channels mended at a time
_PATIENCE = 10  # looks at a stream that does not show what the bus told of, before that counts as gone
_log = logging.getLogger("fanline.recovery")

Readable = tuple[Envelope | None, StreamPosition]


class History(NamedTuple):
    """What the client of a channel lacks, up to an offset; maybe not the newest yet, then ask again."""

    messages: list[Envelope]
    """Oldest first."""
    reached: int
    """With them it has everything up to here."""
    gap: Envelope | None = None
    """What may be gone between the offset that was asked for and the first of them."""


class _RecoveryState:
    """Where those wait who want something of one log."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.steady = trio.Event()
        self.sound_until = 0.0
        """While something may be missing: the Unix time up to which nothing was."""


class Recovery:
    """One worker's. All its waiting survives an outage of the bus: it tries again until it knows, or nobody listens."""

    def __init__(self, bus: Bus, hub: Hub, namespaces: Namespaces, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._hub = hub
        self._namespaces = namespaces
        self._nursery = nursery
        self._desks: WeakKeyDictionary[ChannelLog, _RecoveryState] = WeakKeyDictionary()
        self._states = StreamStates(bus)
        self._outages = 0
        hub.on_hole = self._mend_soon

    async def wait_steady(self, log: ChannelLog) -> None:
        """Wait until a log hands out messages; the first to wait opens it. BusError if its stream cannot be asked."""
        async with self._desk(log).lock:
            if log.state is LogState.OPENING:
                await self._open(log)
        while log.state is not LogState.STEADY:
            await self._desk(log).steady.wait()

    async def _open(self, log: ChannelLog) -> None:
        asked, outages = time.time(), self._outages
        newest = (await self._bus.last_offsets([log.channel])).get(log.channel)
        epoch = self._states.epoch(log.channel)
        if newest is None or epoch is None:
            state = await self._states.now(log.channel)
            newest, epoch = newest or state.last, state.epoch
        if log.task is not None:
            await restore(self._bus, self._read, log.task, epoch, newest)
            newest = max(newest, log.task.offset)  # its checkpoint may be newer than the answer
        self._deliver(log, log.open(epoch, newest))
        if self._outages != outages:
            log.suspect()  # what came after `newest` may have been lost while we asked for the epoch
        if log.state is LogState.MENDING:
            self._mend_soon(log, asked)

    async def history(self, log: ChannelLog, offset: int) -> History:
        """What a client that has everything up to `offset` needs next. BusError.

        Returns without a checkpoint after the log was looked at.
        """
        async with self._desk(log).lock:
            held = log.since(offset)
            if held is not None:
                return History(held, log.last)
            if log.bottom is not None and offset < log.bottom and log.floor <= log.bottom:
                messages = log.since(log.floor) or []
                first = messages[0].offset or 0 if messages else log.last + 1
                return History(messages, log.last, _expired(log, offset, first - 1))
            return await self._look_back(log, offset)

    async def knows(self, log: ChannelLog, offset: int) -> bool:
        """Whether an offset newer than the log is one its stream has given, now or in an epoch that has just ended.

        Another worker may tell a client of it before the bus tells us: then the log is brought up to it. BusError.
        """
        epoch = log.epoch
        newest = (await self._bus.last_offsets([log.channel])).get(log.channel, 0)
        state = await self._states.now(log.channel)
        if newest > log.last or state.epoch != epoch:
            self._mend_soon(log)
            await self.wait_steady(log)
        return offset <= state.last or log.epoch != epoch

    def bus_is_back(self, sound_until: float) -> None:
        """Messages may have been lost since `sound_until` (Unix seconds): hold every durable channel until it has been
        compared with its stream.
        """
        self._outages += 1
        self._states.forget_epochs()
        for log in self._hub.logs():
            self._doubt(log, sound_until)
        self._nursery.start_soon(self._compare_all, name="compare")

    def _doubt(self, log: ChannelLog, sound_until: float) -> None:
        """Hold a log. One doubt upon another: the older stands."""
        desk = self._desk(log)
        desk.sound_until = min(desk.sound_until or sound_until, sound_until)
        log.suspect()

    # --- looking back for a client ------------------------------------------------------------------------------

    async def _look_back(self, log: ChannelLog, offset: int) -> History:
        """Read what a client needs from the stream, and keep it for the next client if it reaches the log."""
        floor = log.floor  # it rises meanwhile if messages come faster than the stream answers
        page, everything = await self._read_back(log, offset)
        state = await self._states.now(log.channel)
        if state.epoch != log.epoch:
            self._mend_soon(log)
            raise BusError(f"the stream of {log.channel} was made anew; try again")
        newest = page.messages[-1].position.offset if page.messages else 0
        reached = min(newest if page.more else max(newest, floor), log.floor)
        older = [stored for stored in page.messages if stored.position.offset <= reached]
        first = older[0].position.offset if older else reached + 1
        # Nothing that came after `sound` has left the stream: it drops the oldest first, for the length of the channel
        # only when that is full, and otherwise whatever came before `state.first`.
        sound = first - 1
        if len(page.messages) + page.more < self._namespaces.of(log.channel).history:
            sound = min(sound, state.first - 1)
        gap = None if sound <= offset else _expired(log, offset, first - 1)
        readable = [(self._read(stored), stored.position) for stored in older]
        if reached < log.floor:
            return History(_chained(readable, offset), reached, gap)
        newer = log.since(log.floor) or []
        log.extend_back(readable, sound if everything else max(sound, offset))
        if everything:
            log.bottom = sound
        return History(
            [e for e, position in readable if e is not None and position.offset > offset] + newer, log.last, gap
        )

    async def _read_back(self, log: ChannelLog, offset: int) -> tuple[Page, bool]:
        """What the stream has from this client's offset on; if another client needs more, everything there is, so that
        it is the last look. Whether it is everything.
        """
        if log.floor != log.last and self._namespaces.of(log.channel).history <= READ_BATCH:
            page = await self._bus.read(log.channel, 1)
            if not page.more:
                return page, True
        return await self._bus.read(log.channel, max(1, offset)), False

    # --- mending what this worker missed ------------------------------------------------------------------------

    def _mend_soon(self, log: ChannelLog, sound_until: float | None = None) -> None:
        self._doubt(log, time.time() if sound_until is None else sound_until)
        self._nursery.start_soon(self._mend, log, name="mend")

    async def _mend(self, log: ChannelLog) -> None:
        """Bring a log up to its stream, trying until that is done or nobody listens any more."""
        tries = 0
        while self._is_current(log) and log.state is LogState.MENDING:
            last = log.last
            try:
                async with self._desk(log).lock:
                    await self._mend_once(log, patient=tries < _PATIENCE)
            except BusError as error:
                _log.debug("cannot mend %s yet: %s", log.channel, error)
            else:
                tries = tries + 1 if log.last == last else 0
            if log.last == last and log.state is LogState.MENDING:
                await trio.sleep(_RETRY_SECONDS)
        self._told_steady(log)

    async def _mend_once(self, log: ChannelLog, *, patient: bool) -> None:
        """`patient`: take for granted that the stream will still show what the bus has already told of; a copy of it
        that answers may lag behind.
        """
        if log.state is not LogState.MENDING:
            return
        heard = log.heard
        found = await self._read_all(log.channel, log.last)  # with it, if it is there: then nothing has left
        state = await self._states.now(log.channel)
        if state.epoch != log.epoch:
            _log.warning("the stream of %s was made anew", log.channel)
            self._deliver(log, with_snapshot(log, log.restart(state.epoch)))
            return
        lost_until = 0
        if not self._is_complete(log, state, found):
            lost_until = found[0].position.offset - 1 if found else state.last
            if log.task is not None:  # the keeper may have seen what is gone
                await restore(self._bus, self._read, log.task, log.epoch, lost_until)
        newest = found[-1].position.offset if found else 0
        readable = [(self._read(stored), stored.position) for stored in found if stored.position.offset > log.last]
        self._deliver(
            log, with_snapshot(log, log.mend(readable, lost_until, newest if patient else max(newest, heard)))
        )

    def _is_complete(self, log: ChannelLog, state: StreamState, found: Sequence[Stored]) -> bool:
        """Whether nothing that came after `log.last` can have left the stream. It drops the oldest first, for its age,
        for the size of the stream or for the number of messages in the channel; each has to be ruled out.
        """
        namespace, sound_until = self._namespaces.of(log.channel), self._desk(log).sound_until
        if state.first <= log.last + 1:
            return len(found) < namespace.history
        young = time.time() - sound_until < namespace.max_age - _CLOCK_SKEW
        roomy = namespace.max_bytes < 0 or state.size < namespace.max_bytes // 2
        older_is_there = state.first_time < sound_until - _CLOCK_SKEW
        return len(found) < namespace.history and ((young and roomy) or older_is_there)

    async def _compare_all(self) -> None:
        """After an outage: ask which channels have moved, and mend only those."""
        logs = sorted((log for log in self._hub.logs() if log.state is LogState.MENDING), key=lambda log: log.channel)
        for _, group in itertools.groupby(logs, key=lambda log: namespace_of(log.channel)):
            members = list(group)
            for start in range(0, len(members), MULTI_LAST):
                await self._compare(members[start : start + MULTI_LAST])

    async def _compare(self, logs: Sequence[ChannelLog]) -> None:
        """Compare channels of one namespace with their stream."""
        try:
            newest = await self._bus.last_offsets([log.channel for log in logs])
            state = await self._states.now(logs[0].channel)
        except BusError:
            moved = list(logs)  # each will try until it knows
        else:
            moved = []
            for log in logs:
                known = newest.get(log.channel)
                unmoved = known == log.last or (known is None and self._is_complete(log, state, []))
                if unmoved and state.epoch == log.epoch:
                    self._deliver(log, log.mend([]))
                    self._told_steady(log)
                if log.state is LogState.MENDING:
                    moved.append(log)
        limiter = trio.CapacityLimiter(_PARALLEL)
        for log in moved:
            self._nursery.start_soon(self._mend_limited, log, limiter, name="mend")

    async def _mend_limited(self, log: ChannelLog, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            await self._mend(log)

    def _told_steady(self, log: ChannelLog) -> None:
        desk = self._desk(log)
        if log.state is LogState.STEADY:
            desk.sound_until = 0.0
        desk.steady.set()
        desk.steady = trio.Event()

    def _is_current(self, log: ChannelLog) -> bool:
        """Whether it is still its channel's log: all may have left, and who came after them has a new one."""
        return self._hub.log(log.channel) is log

    def _deliver(self, log: ChannelLog, envelopes: Sequence[Envelope]) -> None:
        if self._is_current(log):
            self._hub.deliver(log.channel, envelopes)

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read_all(self, channel: str, start: int) -> list[Stored]:
        found: list[Stored] = []
        more = 1
        while more:
            page, more = await self._bus.read(channel, start)
            found += page
            start = page[-1].position.offset + 1 if page else start
            more = more if page else 0
        return found

    def _read(self, stored: Stored) -> Envelope | None:
        return self._hub.read_message(stored.channel, stored.payload, unix_ms_of(stored.position.time))

    def _desk(self, log: ChannelLog) -> _RecoveryState:
        return self._desks.setdefault(log, _RecoveryState())


def _expired(log: ChannelLog, offset: int, until: int) -> Envelope:
    return log.gap(offset + 1, until, GapReason.EXPIRED)


def _chained(readable: Sequence[Readable], offset: int) -> list[Envelope]:
    """Those after an offset, on their way from the stream to one client, each following on the one before."""
    chained = []
    for envelope, position in readable:
        if envelope is not None and position.offset > offset:
            envelope.offset, envelope.previous = position.offset, offset
            offset = position.offset
            chained.append(envelope)
    return chained
