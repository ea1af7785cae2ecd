"""Work queues in memory: the twin of those on NATS, for tests."""

import itertools
import time
from collections.abc import Mapping

import trio

from fanline.engine.bus.stored import KvEntry
from fanline.engine.bus.work import Taker, WorkItem, WorkQueue


class MemoryWork:
    """See engine/bus/work.py for the promises. An item whose taker is gone is not given out again."""

    def __init__(self) -> None:
        self.stored: dict[int, tuple[str, bytes]] = {}
        """Number -> subject and payload of all that is there."""
        self._store_ids: set[str] = set()
        self._numbers = itertools.count(1)
        self._free: dict[int, int] = {}  # number -> attempts so far, of items that no one has taken
        self._changed = trio.Event()

    async def put(self, subject: str, payload: bytes, store_id: str | None = None, *, once: bool = False) -> bool:
        await trio.lowlevel.checkpoint()
        if (store_id is not None and store_id in self._store_ids) or (once and await self.newest("", subject)):
            return False
        self._store_ids |= set() if store_id is None else {store_id}
        number = next(self._numbers)
        self.stored[number] = (subject, payload)
        self.release(number, 0)
        return True

    def release(self, number: int, attempts: int) -> None:
        """Any taker may have it."""
        self._free[number] = attempts
        self._changed.set()
        self._changed = trio.Event()

    async def ensure(self, queue: WorkQueue) -> None:
        await trio.lowlevel.checkpoint()

    def taker(self, queue: WorkQueue) -> Taker:
        return _MemoryTaker(self, queue)

    async def take(self, subject: str) -> WorkItem:
        """What waits on a subject, as soon as something does."""
        while True:
            for number, attempts in self._free.items():
                if number in self.stored and _matches(subject, self.stored[number][0]):
                    del self._free[number]
                    await trio.lowlevel.checkpoint()
                    return _MemoryItem(self, number, attempts + 1)
            await self._changed.wait()

    async def newest(self, stream: str, subject: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return next((payload for found, payload in reversed(self.stored.values()) if found == subject), None)

    async def look(self, stream: str, subject: str, after: int, most: int) -> Mapping[int, KvEntry]:
        await trio.lowlevel.checkpoint()
        found = {
            number: KvEntry(payload, number, "1970-01-01T00:00:00Z")
            for number, (there, payload) in self.stored.items()
            if number > after and _matches(subject, there)
        }
        return dict(itertools.islice(found.items(), most))

    async def keep_newest(self, stream: str, subject: str, most: int) -> None:
        await trio.lowlevel.checkpoint()
        found = [number for number, (there, _) in self.stored.items() if _matches(subject, there)]
        for number in found[: max(0, len(found) - most)]:
            del self.stored[number]

    async def remove(self, stream: str, number: int) -> bool:
        await trio.lowlevel.checkpoint()
        return self.stored.pop(number, None) is not None


class _MemoryTaker:
    def __init__(self, work: MemoryWork, queue: WorkQueue) -> None:
        self._work = work
        self._queue = queue

    async def take(self) -> WorkItem:
        return await self._work.take(self._queue.subject)


class _MemoryItem:
    def __init__(self, work: MemoryWork, number: int, attempt: int) -> None:
        self.subject, self.payload = work.stored[number]
        self.number, self.attempt, self.asked = number, attempt, time.time()
        self._work = work

    async def done(self) -> None:
        await trio.lowlevel.checkpoint()
        self._work.stored.pop(self.number, None)

    async def later(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self._work.release(self.number, self.attempt)

    def working(self) -> None:
        """No other taker gets it."""


def _matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern, in which a `*` stands for one token."""
    wanted, found = pattern.split("."), subject.split(".")
    return len(wanted) == len(found) and all(each in ("*", there) for each, there in zip(wanted, found, strict=True))
