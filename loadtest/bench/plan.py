"""The plan of one run: who subscribes to what, and what is published."""

from typing import Any

import msgspec

from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent

NAMESPACE = "load"
DURABLE = "project"  # not "task": for tasks, workers do more than these benches measure
BALLAST = f"{NAMESPACE}:ballast"
_BALLAST_MESSAGES, _BALLAST_DATA = 1700, 7000
_MARK = "@"  # stands for the data of a message


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    subscribers: int
    channels: int = 1
    """Subscribers and messages use them in turn."""
    rate: float = 0.0
    """Messages a second, over all channels; 0 for a run without messages."""
    seconds: float = 0.0
    """Time of publishing; in a run without messages, time of waiting."""
    stalled: int = 0
    """Subscribers that stop reading once they are subscribed."""
    data: int = 128
    """Bytes of data in one message."""
    workers: int = 1
    tokens: bool = False
    """Whether each subscriber presents a token of its own, signed with HS256."""
    namespace: str = NAMESPACE
    """NAMESPACE is ephemeral, DURABLE durable."""
    environment: dict[str, str] = {}
    """FANLINE_* settings of the server."""

    @property
    def channel(self) -> str:
        """Name of the channels; %d stands for the number."""
        return f"{self.namespace}:%d"

    def channel_of_each(self) -> list[str]:
        """The channel of each subscriber."""
        return [self.channel % (number % self.channels) for number in range(self.subscribers)]

    @property
    def subject(self) -> str:
        """The subject that a producer publishes to; %d as above."""
        return f"fanline.pub.{self.namespace}.%d"

    @property
    def expected(self) -> int:
        """Messages that every subscriber must get; every channel has the same number."""
        return max(1, round(self.rate * self.seconds / self.channels)) if self.rate else 0

    @property
    def count(self) -> int:
        """Messages to publish."""
        return self.expected * self.channels

    def traffic(self, prefix: str, suffix: str) -> dict[str, object]:
        """Options of a publishing program; prefix and suffix are the text around the data of a message."""
        return {
            "rate": self.rate,
            "count": self.count,
            "channels": self.channels,
            "data": self.data,
            "prefix": prefix,
            "suffix": suffix,
        }

    def publications(self) -> dict[str, dict[str, object]]:
        """What is published beside the subscribers of our server: subject -> options of its publisher."""
        messages = {self.subject: self.published()} if self.count else {}
        return messages | ({to_subject(BALLAST): self.ballast()} if self.stalled else {})

    def published(self) -> dict[str, object]:
        """The traffic as a producer publishes it."""
        return self.traffic(*_around(Envelope(type=MessageType.PUB, data=_MARK)))

    def ballast(self) -> dict[str, object]:
        """Extra traffic for the stalled subscribers in the first half of the run: 12 MB each.

        A kernel buffers some 4 MB for a connection that is not read; at the plan's rate it would take minutes to fill.
        """
        own = {"rate": 2 * _BALLAST_MESSAGES / self.seconds, "count": _BALLAST_MESSAGES, "channels": 1}
        return self.published() | own | {"data": _BALLAST_DATA}

    def delivered(self) -> dict[str, object]:
        """The traffic as a subscriber gets it. Peers send this, so that their frames are as long as ours."""
        return self.traffic(*_around(self._delivery()))

    def _delivery(self) -> Envelope:
        """A message as a subscriber gets it, with a mark for what differs from message to message."""
        channel = f"{NAMESPACE}:{self.channels // 2}"
        return Envelope(MessageType.PUB, channel=channel, data=_MARK, time=1_700_000_000_000)


class TaskPlan(Plan, frozen=True, kw_only=True):
    """One task, its viewers, and the events of its producer. Nothing else is published."""

    progress: float
    """Events a second."""
    lines: float
    """Output lines a second, each in an event of its own."""
    slow: int
    """How many of the viewers read only 1 kB/s while the task runs."""


class ManyTasksPlan(Plan, frozen=True, kw_only=True):
    """Many running tasks: the channels. Their viewers are the subscribers; `rate` counts the events of all tasks."""

    most: bool = False
    """Search for the highest rate of events that the server keeps up with, from `rate` on."""

    def publications(self) -> dict[str, dict[str, object]]:
        return {}  # task_publisher publishes, in several rounds

    def _delivery(self) -> Envelope:
        data: dict[str, Any] = {"done": 12, "total": 1000, "message": _MARK, "state": "running", "attempt": 1}
        data |= {"percent": 1.2, "rate": 0.5012345678901234, "eta": 1971.0123456789012}
        channel, offset = f"{self.namespace}:{self.channels // 2}", self.count // 2
        return Envelope(
            MessageType.PUB,
            channel=channel,
            offset=offset,
            previous=max(0, offset - self.channels),
            id="12",
            event=TaskEvent.PROGRESS,
            data=data,
            time=1_700_000_000_000,
            key="progress",
        )


class LongJoinsPlan(Plan, frozen=True, kw_only=True):
    """A long history of one channel, which all subscribers join at once; `data` is the size of a message."""

    def publications(self) -> dict[str, dict[str, object]]:
        return {}  # the history is stored before any client joins

    def message(self, number: int) -> bytes:
        """Message number `number`: rows like those of a table, which take as long to convert as real data."""
        row = {"id": 12345, "name": "row", "ok": True, "share": 0.5}
        rows = [row] * (self.data // len(msgspec.json.encode(row) + b","))
        return encode_json(Envelope(MessageType.PUB, data={"rows": rows, "number": f"{_MARK * 2}{number:08d}"}))


class PresencePlan(Plan, frozen=True, kw_only=True):
    """Users of one channel; `rate` is how many of them join and leave in a second, for `seconds` seconds."""

    def publications(self) -> dict[str, dict[str, object]]:
        return {}  # the bystanders publish


def _around(envelope: Envelope) -> tuple[str, str]:
    prefix, _, suffix = encode_json(envelope).decode().partition(_MARK)
    return prefix, suffix
