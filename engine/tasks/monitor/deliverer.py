"""Delivers what the streams hold for producers and no producer has confirmed: the worker that stored it has died, or
the producer or NATS was unreachable.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.tasks.deliveries import Delivery, call_payload, reply_data, undelivered
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.protocol.errors import MessageError

REPLY_SECONDS = 5.0
_TURN_SECONDS = 0.1
_MAX_UNDER_WAY = 64  # each may wait for a producer
_log = logging.getLogger("fanline.monitor")

Store = Callable[[str, str, dict[str, Any], str], Awaitable[int]]
"""Stores an event of the monitor's own: channel, event, data, id."""


class Deliverer:
    """Empties the roster's queue `deliveries`."""

    def __init__(self, bus: Bus, roster: TaskRoster, store: Store) -> None:
        self._bus = bus
        self._roster = roster
        self._store = store

    async def run(self) -> None:
        """Deliver forever."""
        queue = self._roster.deliveries
        async with trio.open_nursery() as nursery:
            while True:
                for channel in queue.take(trio.current_time(), _MAX_UNDER_WAY):
                    nursery.start_soon(self._try, channel)
                await trio.sleep(_TURN_SECONDS)

    async def _try(self, channel: str) -> None:
        try:
            await self._deliver(channel)
        finally:
            self._roster.deliveries.done(channel, trio.current_time())

    async def _deliver(self, channel: str) -> None:
        task = self._roster.find(channel)
        if task is None:
            self._roster.deliveries.drop(channel)
        elif not task.is_warm or task.pending is not None:  # an entry does not hold the value of an answer
            self._roster.restore_soon(task)
        else:
            with self._roster.edge(task, "what is stored for its producer cannot be delivered"):
                attempt = task.snapshot.attempt  # the next one may begin while the producer takes its time
                for delivery in undelivered(task.snapshot, unix_ms()):
                    try:
                        await self._deliver_one(task, attempt, delivery)
                    except BusError as error:  # the next delivery has to be made all the same
                        _log.debug("%s: %s", channel, error)

    async def _deliver_one(self, task: MonitoredTask, attempt: int, delivery: Delivery) -> None:
        channel, known = task.channel, task.folded
        payload = call_payload(channel, delivery.id, delivery.verb, delivery.data, delivery.by, unix_ms())
        refusal = None
        try:
            reply_data(await self._bus.call(channel, payload, REPLY_SECONDS))
        except MessageError as error:
            refusal = str(error)
        if all(each.id != delivery.id for each in undelivered(task.snapshot, unix_ms())):
            return  # another worker was faster, or another attempt has begun; what is undelivered by now is another
        event, data = delivery.confirmation(refusal)
        # Two holders of the share that deliver the same give the event the same id.
        await self._store(channel, event, {**data, "attempt": attempt}, f"{event}-{attempt}-{known}")
