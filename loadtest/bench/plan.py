"""What one run does."""

import msgspec

from fanline.protocol.envelope import Envelope, MessageType, encode_json

NAMESPACE = "load"
DURABLE = "project"  # not "task": of tasks the workers do more than what these benches measure
BALLAST = f"{NAMESPACE}:ballast"
_BALLAST_MESSAGES, _BALLAST_DATA = 1700, 7000
_PLACE = "@"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run: who subscribes to what, and what is published."""

    subscribers: int
    channels: int = 1
    """The subscribers take them in turn, and so do the messages."""
    rate: float = 0.0
    """Messages a second over all channels; 0 for a run without messages."""
    seconds: float = 0.0
    """Time of publishing; of waiting, in a run without messages."""
    stalled: int = 0
    """Subscribers that stop reading once they are subscribed."""
    data: int = 128
    """Bytes of the data of one message."""
    workers: int = 1
    namespace: str = NAMESPACE
    """Ephemeral, or durable."""
    environment: dict[str, str] = {}
    """FANLINE_* settings of the server."""

    @property
    def channel(self) -> str:
        """Name of the channels; %d stands for the number."""
        return f"{self.namespace}:%d"

    @property
    def subject(self) -> str:
        """Where a producer publishes; %d as above."""
        return f"fanline.pub.{self.namespace}.%d"

    @property
    def expected(self) -> int:
        """Messages that every subscriber must get: as many on every channel."""
        return max(1, round(self.rate * self.seconds / self.channels)) if self.rate else 0

    @property
    def count(self) -> int:
        """Messages to publish."""
        return self.expected * self.channels

    def traffic(self, prefix: str, suffix: str) -> dict[str, object]:
        """Options of whatever publishes; prefix and suffix stand around a message's data."""
        return {
            "rate": self.rate,
            "count": self.count,
            "channels": self.channels,
            "data": self.data,
            "prefix": prefix,
            "suffix": suffix,
        }

    def published(self) -> dict[str, object]:
        """Traffic as a producer publishes it."""
        return self.traffic(*_around(Envelope(type=MessageType.PUB, data=_PLACE)))

    def ballast(self) -> dict[str, object]:
        """What the stalled subscribers are sent besides, in the first half of the run: 12 MB each.

        A kernel holds some 4 MB for a connection that is not read; at the plan's rate that would take minutes to fill.
        """
        own = {"rate": 2 * _BALLAST_MESSAGES / self.seconds, "count": _BALLAST_MESSAGES, "channels": 1}
        return self.published() | own | {"data": _BALLAST_DATA}

    def delivered(self) -> dict[str, object]:
        """Traffic as a subscriber gets it: what a peer sends, so that its frames are as long as ours."""
        channel = f"{NAMESPACE}:{self.channels // 2}"
        return self.traffic(
            *_around(Envelope(type=MessageType.PUB, channel=channel, data=_PLACE, time=1_700_000_000_000))
        )


class TaskPlan(Plan, frozen=True, kw_only=True):
    """One task: who watches it, and what its producer says. Nothing else is published."""

    progress: float
    """Events a second."""
    lines: float
    """Output lines a second, each an event of its own."""
    slow: int
    """Of the viewers, those who read 1 kB/s while the task runs."""


def _around(envelope: Envelope) -> tuple[str, str]:
    prefix, _, suffix = encode_json(envelope).decode().partition(_PLACE)
    return prefix, suffix
