"""Delivers the dispatches of a channel: each by itself, again and again, until it is accepted or given up.

A dispatch leaves its queue only when it is recorded that it was taken, or when it is kept among those that were given
up. So a process that is killed loses none, and the next one may repeat what was taken, but not recorded yet.
"""

import logging
import math
import random
import time
from collections.abc import Callable

import msgspec

from fanline.engine.bus.work import WorkItem
from fanline.engine.log_pace import LogPace
from fanline.engine.notifications.preferences import PreferenceStore
from fanline.protocol.notifications.dispatches import Dispatch, dead_dispatch, dispatch_key
from fanline.protocol.notifications.policy import addresses
from fanline.workers.control.notifying.dead import DeadNotifications
from fanline.workers.control.notifying.records import Records
from fanline.workers.control.notifying.sender import NotDeliveredError, Sender

LEAST_ATTEMPTS = 3
"""Before a dispatch is given up, however long it has waited."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0  # seconds between two attempts
_LONGEST_WAIT = 3600.0  # for the end of quiet hours, at a time
_log = logging.getLogger("fanline.notifications")


class Dispatcher:
    """`give_up`: seconds; `clock`: Unix seconds."""

    def __init__(
        self,
        sender: Sender,
        records: Records,
        preferences: PreferenceStore,
        dead: DeadNotifications,
        give_up: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sender = sender
        self._records = records
        self._preferences = preferences
        self._dead = dead
        self._give_up = give_up
        self._clock = clock
        self._pace = LogPace()

    async def perform(self, item: WorkItem) -> None:
        """Try to deliver what an item holds. BusError."""
        try:
            dispatch = msgspec.json.decode(item.payload, type=Dispatch)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # of a newer version, or not ours at all
            _log.error("an item on %s is not a dispatch, and is dropped: %s", item.subject, error)
            await item.done()
            return
        wait = dispatch.not_before - self._clock()
        if wait > 0:
            await item.later(min(wait, _LONGEST_WAIT))
        else:
            await self._deliver(item, dispatch, dispatch_key(dispatch))

    async def _deliver(self, item: WorkItem, dispatch: Dispatch, key: str) -> None:
        was_given_up = item.attempt > 1 and await self._dead.has(dispatch.user, key)
        if not was_given_up and not await self._records.has_left(key):
            try:
                preferences = await self._preferences.find(dispatch.user)
                await self._sender.send(dispatch, addresses(dispatch.user, preferences))
            except NotDeliveredError as error:
                await self._failed(item, dispatch, key, error)
                return
            await self._records.left(key, "taken")
        await item.done()

    async def _failed(self, item: WorkItem, dispatch: Dispatch, key: str, error: NotDeliveredError) -> None:
        waited = self._clock() - max(item.asked, dispatch.not_before)
        attempts = _attempts(item, dispatch)
        is_late = waited >= self._give_up and attempts >= LEAST_ATTEMPTS
        if not (error.final or is_late):
            if self._pace.allows(f"{dispatch.channel} {error}"):
                _log.warning("%s: %s; it is tried again", dispatch.channel, error)
            # As long again as it has waited: the pauses double, whichever process makes the attempts.
            pause = min(max(waited, _FIRST_PAUSE), _LONGEST_PAUSE)
            await item.later(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            return
        await self._dead.keep(key, dead_dispatch(dispatch, str(error), attempts))
        await self._records.left(key, "given up")
        await item.done()
        if self._pace.allows(f"dead {dispatch.channel}"):
            _log.error("%s: %s; given up after %d attempts", dispatch.channel, error, attempts)


def _attempts(item: WorkItem, dispatch: Dispatch) -> int:
    """How often it was tried, this time included. In quiet hours it was given out again and again, and not tried."""
    waits = math.ceil(max(0.0, dispatch.not_before - item.asked) / _LONGEST_WAIT)
    return max(1, item.attempt - waits)
