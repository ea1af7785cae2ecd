"""Work queues: items wait there until a process has done them, and survive all processes.

An item is given to one taker at a time. It is gone once that taker says `done`. A taker that is silent for ACK_SECONDS
counts as dead, and the item is given to another one. So each item is done at least once.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from fanline.engine.bus.stored import KvEntry

ACK_SECONDS = 10.0
"""An item whose taker is silent for this long is given to another one."""


class WorkQueue(NamedTuple):
    """The items for one kind of taker."""

    stream: str
    subject: str
    """Only what was put there; it may have wildcards."""
    name: str
    """Of the takers, in NATS."""


class WorkItem(Protocol):
    """One thing to do. The methods raise BusError."""

    payload: bytes
    subject: str
    number: int
    """Unique in its stream."""
    attempt: int
    """1 when it is given out for the first time."""
    asked: float
    """When it was put there, in Unix seconds by the clock of the store."""

    async def done(self) -> None:
        """Done: do not give it out again."""
        ...

    async def later(self, seconds: float) -> None:
        """Give it out again after `seconds` seconds."""
        ...

    def working(self) -> None:
        """It is still being worked on; call this every few seconds."""
        ...


class Taker(Protocol):
    """Takes the items of one queue, one after the other."""

    async def take(self) -> WorkItem:
        """Wait for an item. BusError."""
        ...


class WorkQueues(Protocol):
    """The work queues of a cluster."""

    async def put(self, subject: str, payload: bytes, store_id: str | None = None, *, once: bool = False) -> bool:
        """Put an item into the queue of a subject. `once`: unless one waits on this very subject; `store_id`: unless
        one with this id was put there within two minutes. Whether it was put there now. BusError.
        """
        ...

    async def ensure(self, queue: WorkQueue) -> None:
        """Register a queue's takers with the store. BusError."""
        ...

    def taker(self, queue: WorkQueue) -> Taker:
        """One more taker of a queue."""
        ...

    async def newest(self, stream: str, subject: str) -> bytes | None:
        """The newest item that a subject still has; None if it has none. BusError."""
        ...

    async def look(self, stream: str, subject: str, after: int, most: int) -> Mapping[int, KvEntry]:
        """Number -> what is stored on a subject, which may have wildcards, behind the number `after`. BusError."""
        ...

    async def keep_newest(self, stream: str, subject: str, most: int) -> None:
        """Remove what is stored on a subject, which may have wildcards, but for the newest `most`. BusError."""
        ...

    async def remove(self, stream: str, number: int) -> bool:
        """Remove what is stored under a number. Whether it was there. BusError."""
        ...
