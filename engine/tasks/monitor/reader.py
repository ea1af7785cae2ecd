"""Takes the messages of one task namespace, in the order of its stream: live while that works, else from the store.

A holder of shares hears the whole namespace, since JetStream cannot tell the shares apart. The stream numbers its
messages without gaps, so a number that is left out means that a message was lost on its way: then the shares are
*behind*, and are read from the store until nothing newer has been heard. So it is, too, when a share is taken over, and
when messages come faster than they can be folded.

What is heard waits in a queue, from which it is folded in slices: the bus hands over as much as it has read at once.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import Epoch, Page, Stored, StreamState
from fanline.engine.cluster.shares import share_of
from fanline.engine.slices import Slices
from fanline.engine.tasks.monitor.lease import ReadPosition
from fanline.engine.tasks.monitor.share import Share
from fanline.engine.tasks.monitor.task_shares import SLICE_SECONDS

MAX_QUEUE = 20_000
MAX_QUEUE_BYTES = 16 * 1024 * 1024
"""What may wait to be folded; if there is more, it is read again from the store."""
CHECK_SECONDS = 3.0
"""A message that was lost when no other followed is missed this much later, or twice that."""
_DOUBT_SECONDS = 0.2  # at least, between two looks at the stream
_PATIENCE = 10  # reads of what was heard but is not stored, before it counts as gone: a replica may lag behind
_PATIENCE_SECONDS = 0.1
_ROOM_SECONDS = 0.02
_GATHER_SECONDS = 0.02  # a turn of the loop for each message would cost more than folding it
_log = logging.getLogger("fanline.monitor")
NO_EPOCH = Epoch("")
"""That of a reader which does not listen."""


class StreamWentBack(Exception):  # noqa: N818  # an event: nothing that is known of the tasks can be relied upon
    """The stream of a namespace is an older copy of itself."""


class BeginEpoch(Protocol):
    """Told that the stream of a namespace is in another epoch; `recreated`: its offsets begin again."""

    async def __call__(self, namespace: str, epoch: Epoch, *, recreated: bool) -> None: ...


class NamespaceReader:
    """`take(share, epoch, stored)` takes a message; `is_full()`: none can be taken for the moment;
    `begin_epoch(namespace, epoch, recreated=)`: the stream is in another epoch; `recreated`: its offsets begin again.
    """

    def __init__(
        self,
        bus: Bus,
        namespace: str,
        shares: list[Share | None],
        take: Callable[[Share, Epoch, Stored], None],
        is_full: Callable[[], bool],
        begin_epoch: BeginEpoch,
    ) -> None:
        self._bus = bus
        self._namespace = namespace
        self._shares = shares
        self._take = take
        self._is_full = is_full
        self._tell_epoch = begin_epoch
        self.epoch = NO_EPOCH
        """Of the stream, while this worker listens."""
        self.heard = 0
        """Everything up to this offset was heard, or is read from the store before a share is no longer behind."""
        self._queue: deque[Stored] = deque()  # of shares that are not behind
        self._queued_bytes = 0
        self._checked = -math.inf
        self._expected = 0  # the stream's last offset, when it was last looked at
        self._doubted = False
        self._anchor: int | None = None  # what was heard before an outage, until the epoch is known again
        self._work = trio.Event()
        self._starting = trio.Lock()

    # --- what it hears (NamespaceListener) ------------------------------------------------------------------------

    def wants(self, channel: str, offset: int) -> bool:
        if offset != self.heard + 1:
            if offset <= self.heard:  # a repeat, or the beginning of another epoch
                self.doubt()
                return False
            self._fall_behind()
        self.heard = offset
        share = self._shares[share_of(channel)]
        return share is not None and share.loaded and self._namespace not in share.behind

    def take(self, stored: Stored) -> None:
        self._work.set()
        self._queue.append(stored)
        self._queued_bytes += len(stored.payload)
        if len(self._queue) > MAX_QUEUE or self._queued_bytes > MAX_QUEUE_BYTES:
            self._give_up_queue()

    @property
    def taken(self) -> int:
        """Everything up to this offset is taken, but of shares that are behind."""
        return self._queue[0].position.offset - 1 if self._queue else self.heard

    def _give_up_queue(self) -> None:
        """The shares are behind from where they have been folded to."""
        taken = self.taken
        self._clear_queue()
        for share in self._shares:
            if share is not None and share.loaded:
                share.behind[self._namespace] = min(taken, share.behind.get(self._namespace, taken))
        self._work.set()

    def doubt(self) -> None:
        """Look soon whether something was lost."""
        self._doubted = True
        self._work.set()

    def bus_is_back(self) -> None:
        """After an outage: the stream may be in another epoch, to which what was heard so far does not belong."""
        self._anchor = self.heard if self._anchor is None else self._anchor
        self.doubt()

    def _fall_behind(self) -> None:
        """Something after `_heard` was not heard: the shares that were up to there have to be read."""
        for share in self._shares:
            if share is not None and share.loaded:
                share.behind.setdefault(self._namespace, self.heard)
        self._work.set()

    # --- shares that come and go ----------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Hear the namespace from now on. BusError."""
        async with self._starting:
            if self.epoch is NO_EPOCH:
                await self._bus.hear_namespace(self._namespace, self)
                state = await self._bus.stream_state(f"{self._namespace}:")
                self.epoch, self.heard, self._expected = state.epoch, max(self.heard, state.last), state.last

    async def stop(self) -> None:
        """No longer hear it. BusError."""
        async with self._starting:
            self.epoch, self.heard, self._anchor = NO_EPOCH, 0, None
            self._clear_queue()
            await self._bus.hear_namespace(self._namespace, None)

    def begin(self, share: Share) -> None:
        """Have a share read from where its last holder stopped."""
        position = share.lease.positions.get(self._namespace)
        share.behind[self._namespace] = self._covered(position)
        share.said[self._namespace] = self._covered(share.lease.said.get(self._namespace))
        self._work.set()

    def _covered(self, position: ReadPosition | None) -> int:
        """The offset of a position; 0 if the stream is no longer the one that it belongs to."""
        return 0 if position is None or not self.epoch.covers(*position) else position.offset

    def position(self, share: Share) -> ReadPosition:
        """Where the next holder of a share would have to begin."""
        taken, unsaved = self._taken_of(share), share.unsaved_since(self._namespace)
        return ReadPosition(self.epoch.name, taken if unsaved is None else min(taken, unsaved - 1))

    def said(self, share: Share) -> ReadPosition:
        """Up to where everything is folded, and the ends of attempts are said, stored or not."""
        taken, put_off = self._taken_of(share), share.put_off_since(self._namespace)
        folded = taken if put_off is None else min(taken, put_off - 1)
        return ReadPosition(self.epoch.name, max(folded, share.said.get(self._namespace, 0)))

    def _taken_of(self, share: Share) -> int:
        return min(self.taken, share.behind.get(self._namespace, self.taken))

    # --- reading --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take what comes, and read what has to be read, until cancelled or BusError."""
        while True:
            with trio.move_on_after(_DOUBT_SECONDS if self._doubted else CHECK_SECONDS):
                await self._work.wait()
            await trio.sleep(_GATHER_SECONDS)
            self._work = trio.Event()
            await self._empty_queue()
            if self.epoch is not NO_EPOCH:
                await self._check()
                await self._catch_up()

    async def catch_up(self) -> None:
        """Return when everything that is stored by now is taken, if this worker listens. BusError."""
        if self.epoch is NO_EPOCH:
            return
        newest = (await self._bus.stream_state(f"{self._namespace}:")).last
        while self.epoch is not NO_EPOCH and (self.taken < newest or self._behind()):
            self._work.set()
            await trio.sleep(_GATHER_SECONDS / 2)

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0

    async def _wait_for_room(self) -> None:
        while self._is_full():  # noqa: ASYNC110  # it is rare, and short
            await trio.sleep(_ROOM_SECONDS)

    async def _empty_queue(self) -> None:
        slices = Slices(SLICE_SECONDS)
        while self._queue:
            stored = self._queue.popleft()
            self._queued_bytes -= len(stored.payload)
            share = self._shares[share_of(stored.channel)]
            if share is not None and share.loaded:  # one that was given back and taken again reads it from the store
                self._take(share, self.epoch, stored)
            await slices.breathe()
            await self._wait_for_room()

    async def _check(self) -> None:
        """See now and then whether the stream is as it was, and whether everything that was to be expected has come."""
        doubted, now = self._doubted, trio.current_time()
        if now - self._checked < (_DOUBT_SECONDS if doubted else CHECK_SECONDS):
            return
        self._checked, self._doubted = now, False
        state = await self._bus.stream_state(f"{self._namespace}:")
        anchor, self._anchor = self.heard if self._anchor is None else self._anchor, None
        if not state.epoch.covers(self.epoch.name, anchor):
            if state.epoch.went_back_from(self.epoch.name, anchor):
                self.epoch, self.heard = NO_EPOCH, 0
                self._clear_queue()
                raise StreamWentBack(self._namespace)
            await self._begin_epoch(state)
            self._expected = state.last
            return
        if state.epoch != self.epoch:
            self.epoch = state.epoch
            await self._tell_epoch(self._namespace, state.epoch, recreated=False)
        if (state.last if doubted else self._expected) > self.heard:
            self._fall_behind()
            self.heard = max(self.heard, state.last)
        self._expected = state.last

    async def _begin_epoch(self, state: StreamState) -> None:
        _log.warning("the stream of the namespace %s was recreated", self._namespace)
        self.epoch, self.heard = state.epoch, state.last
        self._clear_queue()
        for share in self._shares:
            if share is not None and share.loaded:
                share.behind[self._namespace] = 0
        await self._tell_epoch(self._namespace, state.epoch, recreated=True)

    async def _catch_up(self) -> None:
        """Read until no share is behind. BusError."""
        patience = _PATIENCE
        while shares := self._behind():
            start, epoch = min(shares.values()) + 1, self.epoch
            page = await self._bus.read_namespace(self._namespace, start)
            await self._empty_queue()  # what a share was to take before it fell behind comes first
            await self._distribute(page, shares)
            if page.messages:
                reached, patience = page.messages[-1].position.offset, _PATIENCE
            elif start <= self.heard and patience:
                patience -= 1
                await trio.sleep(_PATIENCE_SECONDS)
                continue
            else:
                reached = self.heard
            if epoch == self.epoch:
                self._advance(shares, reached)

    def _behind(self) -> dict[Share, int]:
        name = self._namespace
        return {share: share.behind[name] for share in self._shares if share is not None and name in share.behind}

    async def _distribute(self, page: Page, shares: dict[Share, int]) -> None:
        slices, epoch = Slices(SLICE_SECONDS), self.epoch
        for stored in page.messages:
            share = self._shares[share_of(stored.channel)]
            if share is not None and stored.position.offset > shares.get(share, stored.position.offset):
                self._take(share, epoch, stored)
            await slices.breathe()
            await self._wait_for_room()

    def _advance(self, shares: dict[Share, int], reached: int) -> None:
        for share, begun in shares.items():
            if reached >= self.heard:
                share.behind.pop(self._namespace, None)
            else:
                share.behind[self._namespace] = max(begun, reached)
