"""The tasks that have ended and are not wholly stored, and for which no job waits any more: bounded, in order. Pure.

That is how an outage of NATS passes a worker of a queue by: it goes on working, and the ends of its tasks wait here.

| too much of | what goes                                                                             |
|-------------|---------------------------------------------------------------------------------------|
| bytes       | the output of the oldest, and whatever else is large; the oldest, if that is too little |
| tasks       | the oldest                                                                            |

They have turns: at most TURNS of them are published at once, so that a backlog of thousands costs the exporter no more
than a few tasks do. The oldest comes first, so a run of a task never waits for one that has its turn later.
"""

from collections.abc import Iterator

from fanline.producer.exporter.task_publisher import TaskPublisher

MAX_TASKS = 2_000
"""Of tasks that report nothing else; 18 MB of memory."""
MAX_BYTES = 16 << 20
"""Of the events of all of them."""
TURNS = 50


class KeptTasks:
    """In the order in which they were added, which is that of their ends."""

    def __init__(self) -> None:
        self._sizes: dict[TaskPublisher, int] = {}
        self._bytes = 0
        self._whole: dict[TaskPublisher, None] = {}  # those that have not been trimmed
        self._parked: dict[TaskPublisher, None] = {}  # those that wait for their turn

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, publisher: TaskPublisher) -> bool:
        return publisher in self._sizes

    def add(self, publisher: TaskPublisher) -> bool:
        """Returns whether it has its turn at once."""
        has_turn = not self._parked and self._turns < TURNS
        self._sizes[publisher] = publisher.size
        self._bytes += self._sizes[publisher]
        self._whole[publisher] = None
        if not has_turn:
            self._parked[publisher] = None
        return has_turn

    def remove(self, publisher: TaskPublisher) -> None:
        """It is stored, or given up; nothing happens if it was never added."""
        self._bytes -= self._sizes.pop(publisher, 0)
        self._whole.pop(publisher, None)
        self._parked.pop(publisher, None)

    def next_turns(self) -> Iterator[TaskPublisher]:
        """Those whose turn it is now."""
        while self._parked and self._turns < TURNS:
            publisher = next(iter(self._parked))
            del self._parked[publisher]
            yield publisher

    def trim(self) -> int:
        """Drop output until the rest is within the bounds, or there is none. Returns how many lines."""
        lines = 0
        while self._bytes > MAX_BYTES and self._whole:
            publisher = next(iter(self._whole))
            del self._whole[publisher]
            lines += publisher.trim()
            self._bytes += publisher.size - self._sizes[publisher]
            self._sizes[publisher] = publisher.size
        return lines

    @property
    def excess(self) -> TaskPublisher | None:
        """The one to give up, since there is too much even so."""
        too_much = len(self._sizes) > MAX_TASKS or self._bytes > MAX_BYTES
        return next(iter(self._sizes)) if too_much else None

    @property
    def _turns(self) -> int:
        """How many have their turn."""
        return len(self._sizes) - len(self._parked)
