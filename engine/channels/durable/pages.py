"""Pages of channels' histories that were read from the stream lately, for clients that join together.

A history that is too long for the log of its channel is read page by page. Clients that join at the same time need the
same pages, so the worker keeps the newest ones, and neither reads nor decodes them again for each client. No I/O.
"""

from collections.abc import Sequence
from typing import NamedTuple

import trio

from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.log_budget import weight_of
from fanline.protocol.envelope import Envelope

PAGES_BYTES = 32 * 1024 * 1024
"""Bytes that the pages of one worker may take together."""
PAGES_SECONDS = 20.0
"""For how long a page is kept: clients join together, or read their own."""
_MOST = 256  # pages; a search goes through all of them


class HistoryPage(NamedTuple):
    """All readable messages with `start < offset <= reached` that are still stored, in order."""

    channel: DurableChannel
    lives: int
    """Of the channel, when the page was read: its offsets are of no other life."""
    start: int
    reached: int
    first: int
    """Offset of the first message that is still stored; of what comes after `reached` if there is none."""
    sound: int
    """No message after this offset, up to `reached`, has left the stream."""
    messages: Sequence[Envelope]

    def has_next(self, channel: DurableChannel, offset: int) -> bool:
        """Whether the page has what a client needs next that has everything up to `offset`."""
        return self.channel is channel and self.lives == channel.lives and self.start <= offset < self.reached


class _KeptPage(NamedTuple):
    page: HistoryPage
    weight: int
    time: float
    """When it was read, in seconds of Trio's clock."""


class RecentPages:
    """The pages of one worker, the newest last."""

    def __init__(self, most: int = PAGES_BYTES) -> None:
        self._most = most
        self._pages: list[_KeptPage] = []
        self._weight = 0

    def find(self, channel: DurableChannel, offset: int) -> HistoryPage | None:
        """The page from which a client goes on that has everything up to `offset`."""
        return next((kept.page for kept in self._pages if kept.page.has_next(channel, offset)), None)

    def has(self, channel: DurableChannel) -> bool:
        """Whether there is any page of a channel: then its history was too long for its log."""
        return any(kept.page.channel is channel for kept in self._pages)

    def add(self, page: HistoryPage) -> None:
        """Keep a page for a while, or until newer ones need its room."""
        weight, now = sum(map(weight_of, page.messages)), trio.current_time()
        self._pages.append(_KeptPage(page, weight, now))
        self._weight += weight
        while self._weight > self._most or len(self._pages) > _MOST or self._pages[0].time < now - PAGES_SECONDS:
            self._weight -= self._pages.pop(0).weight
