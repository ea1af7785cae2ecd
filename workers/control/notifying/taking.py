"""Takes items from a work queue, forever. The edge where faults of NATS and our own end: the item comes again."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.work import ACK_SECONDS, WorkItem, WorkQueue, WorkQueues
from fanline.engine.log_pace import LogPace

MAX_HELD_BYTES = 16 << 20
"""Of the items that one server has taken; beyond them it takes no more until some are done."""
_AGAIN_SECONDS = 1.0  # after a fault
_log = logging.getLogger("fanline.notifications")


class QueueJob(NamedTuple):
    """How the items of a queue are worked on."""

    perform: Callable[[WorkItem], Awaitable[None]]
    """Does what an item asks for, to its `done` or `later`. BusError: it is given out again."""
    at_once: int
    """Items that one server works on at a time."""
    in_hand: int
    """Items that one server has taken, at_once at least: those behind others of their lane wait here, out of the way
    of other lanes.
    """
    lane_of: Callable[[WorkItem], str | None] = lambda item: None
    """Items of one lane are worked on one after the other, in their order; None: the item is in none."""


class QueueWorker:
    """Of one queue."""

    def __init__(self, work: WorkQueues, queue: WorkQueue, job: QueueJob) -> None:
        self._work = work
        self._queue = queue
        self._job = job
        self._free = trio.Semaphore(job.at_once)
        self._held: set[WorkItem] = set()
        self._held_bytes = 0
        self._released = trio.lowlevel.ParkingLot()
        self._lanes: dict[str, deque[WorkItem]] = {}
        """Lane -> its items behind the one that is being worked on."""
        self._pace = LogPace()

    async def run(self) -> NoReturn:
        """Work for ever."""
        taker = self._work.taker(self._queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            is_known = False
            while True:
                while len(self._held) >= self._job.in_hand or self._held_bytes >= MAX_HELD_BYTES:
                    await self._released.park()
                try:
                    if not is_known:
                        await self._work.ensure(self._queue)
                    item = await taker.take()
                    is_known = True
                except Exception as error:  # noqa: BLE001  # ours, too, is not to end the control process
                    self._report(error)
                    is_known = False
                    await trio.sleep(_AGAIN_SECONDS)
                else:
                    self._enter(item, nursery)
        raise AssertionError

    def _enter(self, item: WorkItem, nursery: trio.Nursery) -> None:
        self._held.add(item)
        self._held_bytes += len(item.payload)
        lane = self._job.lane_of(item)
        if lane is None:
            nursery.start_soon(self._carry, item)
        elif lane in self._lanes:
            self._lanes[lane].append(item)
        else:
            self._lanes[lane] = deque([item])
            nursery.start_soon(self._clear, lane)

    async def _clear(self, lane: str) -> None:
        """Work on the items of a lane until there are no more."""
        while self._lanes[lane]:
            await self._carry(self._lanes[lane].popleft())
        del self._lanes[lane]

    async def _carry(self, item: WorkItem) -> None:
        try:
            async with self._free:
                await self._job.perform(item)
        except Exception as error:  # noqa: BLE001  # the item comes again
            self._report(error)
        finally:
            self._held.remove(item)
            self._held_bytes -= len(item.payload)
            self._released.unpark()

    async def _keep(self) -> NoReturn:
        """Say of all items in hand that they are still being worked on."""
        while True:
            await trio.sleep(ACK_SECONDS / 4)
            for item in self._held:
                item.working()

    def _report(self, error: Exception) -> None:
        if isinstance(error, BusError):
            if self._pace.allows("nats"):
                _log.warning("notifications wait: NATS: %s", error)
        elif self._pace.allows("fault"):
            _log.error("a notification failed; it is tried again", exc_info=error)
