"""Recovery: asks the streams where a durable channel stands, and what this worker has missed of it.

The channel decides what follows on what (channel.py); the waiting is here. All of it survives an outage of the bus: it
tries again until it knows, or until the channel has no subscribers left.
"""

import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import MULTI_LAST, Epoch, Page, Stored, StreamState
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.messages import MessageReader
from fanline.engine.faults import Faults
from fanline.engine.slices import SMALL_BYTES, Turns
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.restore import restore
from fanline.protocol.channels import namespace_of

_RETRY_SECONDS = 0.2
PAGES = 32
"""Pages of what was missed that a worker holds at a time: with them, its memory does not grow with the outage."""
_STEP = 16  # messages delivered between two looks at the clock
_PATIENCE = 10  # reads of a stream that does not show what the bus has delivered, before that counts as gone
_log = logging.getLogger("fanline.recovery")


class Recovery:
    """Of one worker's durable channels."""

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        states: StreamStates,
        reader: MessageReader,
        faults: Faults,
        nursery: trio.Nursery,
        turns: Turns | None = None,
    ) -> None:
        self._bus = bus
        self._hub = hub
        self._states = states
        self._reader = reader
        self._faults = faults
        self._nursery = nursery
        self._turns = turns or Turns()
        self._reading = trio.CapacityLimiter(PAGES)
        self._outages = 0
        hub.on_hole = self.recover_soon

    # --- opening -------------------------------------------------------------------------------------------------

    async def wait_steady(self, channel: DurableChannel) -> None:
        """Wait until a channel hands out messages; the first to wait opens it. BusError if that cannot be done."""
        async with channel.asking:
            if channel.state is not DurableState.STEADY:
                self._check_quarantine(channel)
            if channel.state is DurableState.OPENING:
                await self._open_or_quarantine(channel)
        await channel.wait_steady()

    def _check_quarantine(self, channel: DurableChannel) -> None:
        seconds = self._faults.seconds_left(channel.name)
        if seconds:
            raise BusError(
                f"{channel.name} is out of service after a fault of the server, whose log says more; "
                f"try again in {math.ceil(seconds)} s"
            )

    async def _open_or_quarantine(self, channel: DurableChannel) -> None:
        try:
            await self._open(channel)
        except BusError:
            raise
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.quarantine(channel.name, "it cannot be opened")
            self._check_quarantine(channel)

    async def _open(self, channel: DurableChannel) -> None:
        asked, outages = time.time(), self._outages
        newest = (await self._bus.last_offsets([channel.name])).get(channel.name)
        epoch = self._states.epoch(channel.name)
        if newest is None or epoch is None:
            state = await self._states.now(channel.name)
            newest, epoch = newest or state.last, state.epoch
        reached = await self._restore(channel, epoch, newest)
        try:
            self._hub.deliver(channel, channel.open(epoch, reached))
        except Exception:
            self.recover_soon(channel, asked)  # what was held may be lost: it is read when the quarantine is over
            raise
        if self._outages != outages:
            channel.doubt(asked)  # what came after `newest` may have been lost while we asked for the epoch
        if channel.state is DurableState.RECOVERING:
            self.recover_soon(channel, asked)

    async def _restore(self, channel: DurableChannel, epoch: Epoch, until: int) -> int:
        """Bring the fold of a channel up to `until`, or a little further: up to where it is then."""
        if not isinstance(channel.fold, TaskFold):
            return until
        return await restore(self._bus, self._reader.read_stored, channel.fold, epoch, until)

    async def knows(self, channel: DurableChannel, offset: int) -> bool:
        """Whether an offset newer than the log is one its stream has given, now or in an epoch that has just ended.

        Another worker may have sent it to a client before the bus delivers it to us: then the log is brought up to it.
        BusError.
        """
        lives = channel.lives
        newest = (await self._bus.last_offsets([channel.name])).get(channel.name, 0)
        state = await self._states.now(channel.name)
        if newest > channel.last or state.epoch != channel.epoch:
            self.recover_soon(channel)
            await self.wait_steady(channel)
        return offset <= state.last or channel.lives != lives

    # --- one channel ---------------------------------------------------------------------------------------------

    def recover_soon(self, channel: DurableChannel, sound_until: float | None = None) -> None:
        """Messages of a channel after `sound_until` (Unix seconds; by default: now) may be missing."""
        channel.doubt(time.time() if sound_until is None else sound_until)
        self._nursery.start_soon(self._recover, channel, name="recovery")

    async def _recover(self, channel: DurableChannel) -> None:
        """Bring a channel up to its stream, page by page, trying until that is done or it has no subscribers left. A
        channel in quarantine waits until that is over, and then reads what it has missed.
        """
        tries = 0
        while self._is_doubtful(channel):
            await self._sit_out(channel)
            last, epoch = channel.last, channel.epoch
            try:
                async with channel.asking, self._reading:
                    await self._compare_with_stream(channel, patient=tries < _PATIENCE)
            except BusError as error:
                _log.debug("cannot recover %s yet: %s", channel.name, error)
            except Exception:  # noqa: BLE001  # our own fault
                self._faults.quarantine(channel.name, "it cannot be recovered")
                self._hub.give_up(channel)
            else:
                tries = tries + 1 if channel.last == last else 0
            if (channel.last, channel.epoch) == (last, epoch) and channel.state is DurableState.RECOVERING:
                await trio.sleep(_RETRY_SECONDS)
        channel.wake()

    async def _compare_with_stream(self, channel: DurableChannel, *, patient: bool) -> None:
        """Deliver the next page of what the stream holds after `last`. With its last page the channel is steady again.

        `patient`: take for granted that the stream will still show what the bus has already delivered, or what the task
        monitor knows of; the replica that answers may lag behind.
        """
        if channel.state is not DurableState.RECOVERING:
            return
        heard = channel.heard
        page = await read_on(self._bus, channel.name, channel.last)
        state = await self._states.now(channel.name)
        if state.epoch != channel.epoch:  # the messages found may be of either epoch: read again
            self._meet(channel, state.epoch)
            return
        lost_until = 0
        if not channel.is_complete(state, len(page.messages) + page.more, time.time()):
            lost_until = page.messages[0].position.offset - 1 if page.messages else state.last
        if lost_until > channel.last:  # the task monitor may have seen what is gone
            await self._restore(channel, channel.epoch, lost_until)
        newest = page.messages[-1].position.offset if page.messages else 0
        if (page.more and page.messages) or (patient and max(newest, lost_until) < channel.folded):
            read_until = None
        else:
            read_until = newest if patient else max(newest, heard)
        await self._hand_out(channel, page.messages, lost_until, read_until)

    def _meet(self, channel: DurableChannel, epoch: Epoch) -> None:
        torn = channel.meet(epoch)
        if torn is not None:
            _log.warning("the stream of %s was recreated, or went back to an older copy", channel.name)
            self._hub.deliver(channel, torn)

    async def _hand_out(
        self, channel: DurableChannel, found: Sequence[Stored], lost_until: int, read_until: int | None
    ) -> None:
        """Deliver the messages found: at once if they are small, otherwise by turns, and so that no more than they are
        pending.

        `lost_until`, `read_until`: as of `DurableChannel.recover`; None: more pages are to come.
        """
        steps = self._steps(channel, found, lost_until, read_until)
        if sum(len(stored.payload) for stored in found) <= SMALL_BYTES:
            for _ in steps:
                pass
        else:
            await self._turns.all(steps)
            await self._hub.pending_taken().wait()

    def _steps(
        self, channel: DurableChannel, found: Sequence[Stored], lost_until: int, read_until: int | None
    ) -> Iterator[None]:
        missed = [stored for stored in found if stored.position.offset > channel.last]
        for start in range(0, len(missed) or 1, _STEP):
            if not self._is_doubtful(channel):
                return  # it was compared with its stream meanwhile, or all subscribers have left
            step = [(self._reader.read_stored(each), each.position) for each in missed[start : start + _STEP]]
            if read_until is not None and start + _STEP >= len(missed):
                envelopes = channel.recover(step, lost_until, read_until)
            else:
                envelopes = channel.advance(step, lost_until, step[-1][1].offset if step else 0)
            self._hub.deliver(channel, envelopes)
            lost_until = 0
            yield

    # --- after an outage -----------------------------------------------------------------------------------------

    def bus_is_back(self, sound_until: float) -> None:
        """Messages may have been lost since `sound_until` (Unix seconds): hold every durable channel until it has been
        compared with its stream.
        """
        self._outages += 1
        self._states.forget_epochs()
        for channel in self._hub.durable_channels():
            channel.doubt(sound_until)
        self._nursery.start_soon(self._compare_all, name="compare")

    async def _compare_all(self) -> None:
        """Ask which channels have moved, and recover only those."""
        doubtful = [each for each in self._hub.durable_channels() if each.state is DurableState.RECOVERING]
        doubtful.sort(key=lambda channel: channel.name)
        for _, group in itertools.groupby(doubtful, key=lambda channel: namespace_of(channel.name)):
            members = list(group)
            for start in range(0, len(members), MULTI_LAST):
                self._nursery.start_soon(self._compare, members[start : start + MULTI_LAST], name="compare")

    async def _compare(self, channels: Sequence[DurableChannel]) -> None:
        """Compare channels of one namespace with their stream, trying until it answers or they have no subscribers
        left.
        """
        while channels := [each for each in channels if self._is_doubtful(each)]:
            try:
                newest = await self._bus.last_offsets([channel.name for channel in channels])
                state = await self._states.now(channels[0].name)
            except BusError as error:
                _log.debug("cannot compare %d channels yet: %s", len(channels), error)
                await trio.sleep(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001  # our own fault; each is tried alone, and has an edge of its own
                self._faults.report(namespace_of(channels[0].name), "channels cannot be compared with their stream")
                return self._recover_all(channels)
            else:
                return self._recover_moved(channels, newest, state)
        return None

    def _is_doubtful(self, channel: DurableChannel) -> bool:
        return self._hub.is_open(channel) and channel.state is DurableState.RECOVERING

    def _recover_moved(self, channels: Sequence[DurableChannel], newest: Mapping[str, int], state: StreamState) -> None:
        for channel in channels:
            try:
                self._take_unmoved(channel, newest.get(channel.name), state)
            except Exception:  # noqa: BLE001  # our own fault
                self._faults.report(channel.name, "what was held cannot be delivered")
                self._hub.give_up(channel)
                channel.wake()
        self._recover_all(channels)

    def _recover_all(self, channels: Sequence[DurableChannel]) -> None:
        for channel in channels:
            if channel.state is DurableState.RECOVERING:
                self._nursery.start_soon(self._recover, channel, name="recovery")

    def _take_unmoved(self, channel: DurableChannel, newest: int | None, state: StreamState) -> None:
        """A channel that has not moved since its last message misses nothing."""
        unmoved = newest == channel.last or (newest is None and channel.is_complete(state, 0, time.time()))
        if unmoved and channel.folded <= channel.last and state.epoch.covers(channel.epoch.name, channel.last):
            channel.meet(state.epoch)
            self._hub.deliver(channel, channel.recover([]))
            channel.wake()

    async def _sit_out(self, channel: DurableChannel) -> None:
        await trio.sleep(self._faults.seconds_left(channel.name))


async def read_on(bus: Bus, channel: str, offset: int) -> Page:
    """The next page for those who have everything up to `offset`. It begins with that very message: if it is still
    there, nothing behind it has left the stream. BusError.
    """
    page = await bus.read(channel, max(1, offset))
    if not page.more or not page.messages or page.messages[-1].position.offset > offset:
        return page
    rest = await bus.read(channel, offset + 1)  # the message is so long that no other has found room
    return Page(page.messages + rest.messages, rest.more)
