"""Dead notifications: kept where an operator can find them, and have them tried again."""

import random
from typing import NamedTuple

import msgspec

from fanline.engine.bus.work import WorkQueues
from fanline.protocol.nats.names import DEAD_NOTIFICATIONS, dead_notification_subject, dispatch_subject, name_key
from fanline.protocol.notifications.dispatches import DeadNotification, dispatch_key

MAX_REASON = 300
"""Characters of a reason: some quote what they are about."""
MOST_OF_ONE_USER = 500
"""That are kept, and a few more."""
_LOOK_CHANCE = 1 / 16  # after one was kept: counting costs a request
_decoder = msgspec.json.Decoder(DeadNotification)


class KeptDead(NamedTuple):
    """One of them."""

    number: int
    """By which it is named."""
    time: str
    """When it was given up, RFC 3339."""
    dead: DeadNotification


class DeadNotifications:
    """Those of a cluster. The methods raise BusError."""

    def __init__(self, work: WorkQueues) -> None:
        self._work = work

    async def keep(self, key: str, dead: DeadNotification) -> None:
        """Keep one, once. A flood of one user's pushes out that user's own older ones, and no others."""
        user = name_key(dead.user or "")
        await self._work.put(dead_notification_subject(user, key), msgspec.json.encode(dead), once=True)
        if random.random() < _LOOK_CHANCE:  # noqa: S311  # no secret; whoever floods meets it soon
            await self._work.keep_newest(DEAD_NOTIFICATIONS, dead_notification_subject(user), MOST_OF_ONE_USER)

    async def has(self, user: str, key: str) -> bool:
        """Whether it is kept already."""
        subject = dead_notification_subject(name_key(user), key)
        return await self._work.newest(DEAD_NOTIFICATIONS, subject) is not None

    async def list(self, after: int, most: int) -> list[KeptDead]:
        """What was given up, oldest first, behind the number `after`."""
        found = await self._work.look(DEAD_NOTIFICATIONS, dead_notification_subject(), after, most)
        return [KeptDead(n, each.time, _decoder.decode(each.value)) for n, each in found.items()]

    async def try_again(self, number: int) -> bool:
        """Put a dispatch into its queue once more. False if there is none of this number.

        It is removed only when it is in the queue. Whoever repeats what was cut short puts the same item there.
        """
        found = next(iter(await self.list(number - 1, 1)), None)
        if found is None or found.number != number or found.dead.dispatch is None:
            return False
        dispatch = msgspec.structs.replace(found.dead.dispatch, not_before=0.0, again=number)
        subject = dispatch_subject(dispatch.channel, dispatch_key(dispatch))
        await self._work.put(subject, msgspec.json.encode(dispatch), once=True)
        await self._work.remove(DEAD_NOTIFICATIONS, number)
        return True
