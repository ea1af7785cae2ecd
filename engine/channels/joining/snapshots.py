"""The newest snapshots of tasks: viewers that join a task together are sent the same one, made and encoded once."""

from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.clock import unix_ms
from fanline.protocol.envelope import Envelope

_MOST = 16  # of at most some 64 KiB each

_Key = tuple[str, str, int, int, int]


class SharedSnapshots:
    """Of one worker. A snapshot is shared for as long as it is the newest, but for a second at most, since it carries
    the time.
    """

    def __init__(self) -> None:
        self._kept: dict[_Key, Envelope] = {}  # the oldest first

    def of(self, durable: DurableChannel, lines: int) -> Envelope:
        """The task as of the newest message, with the newest `lines` lines of its output."""
        key = (durable.name, durable.epoch.name, durable.last, lines, unix_ms() // 1000)
        snapshot = self._kept.get(key)
        if snapshot is None:
            snapshot = self._kept[key] = durable.snapshot(lines)
            if len(self._kept) > _MOST:
                del self._kept[next(iter(self._kept))]
        return snapshot
