"""How much memory the logs of a worker's durable channels may take together. No I/O.

Over the bound, the log that no client has read for the longest time loses its oldest messages. One channel never gets
more than its share, so that a single busy one does not push out all the others.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from fanline.protocol.envelope import Envelope

if TYPE_CHECKING:
    from fanline.engine.channels.durable.log import ChannelLog

_SHARE = 8  # one channel gets at most this part of the budget
_AT_ONCE = 32  # this part of the budget is freed at a time
_OVERHEAD = 500  # bytes of an envelope besides its data
_DECODED = 10  # a decoded value takes about this many times its JSON: Python objects
_encode = msgspec.json.Encoder().encode


class LogBudget:
    """`most`: bytes that all logs may take, and what channels hold while they are recovered (channel.py)."""

    __slots__ = ("_logs", "most", "share", "used")

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self.share = most // _SHARE
        """Bytes that one log may take."""
        self.used = 0
        """Bytes that they take; kept by the logs and channels themselves."""
        self._logs: dict[ChannelLog, None] = {}  # those that are not empty, the longest unused first

    def enter(self, log: "ChannelLog") -> None:
        """A log is not empty any more."""
        self._logs[log] = None

    def leave(self, log: "ChannelLog") -> None:
        """A log is empty."""
        self._logs.pop(log, None)

    def use(self, log: "ChannelLog") -> None:
        """A client reads a log."""
        if log in self._logs:
            del self._logs[log]
            self._logs[log] = None

    def make_room(self) -> None:
        """If the bound is exceeded, shrink the logs until they are a little below it."""
        if self.used <= self.most:
            return
        while self.used > self.most - self.most // _AT_ONCE and self._logs:
            next(iter(self._logs)).drop_oldest()


def up_to(messages: Iterable[Envelope], most: int) -> tuple[list[Envelope], int]:
    """The first messages, up to the one that makes them `most` bytes or more, and their bytes."""
    found, weight = list[Envelope](), 0
    for envelope in messages:
        found.append(envelope)
        weight += weight_of(envelope)
        if weight >= most:
            break
    return found, weight


def weight_of(envelope: Envelope) -> int:
    """The bytes of memory that a message takes, about."""
    data, extra = envelope.data, envelope.extra
    weight = _OVERHEAD if extra is None else _OVERHEAD + _DECODED * len(_encode(extra))
    if type(data) is Raw:
        return weight + memoryview(data).nbytes
    return weight if data is None else weight + _DECODED * len(_encode(data))
