"""Pages of what is stored of a channel, for clients that look back, subscribed to it or not.

A stream counts the messages of a channel from any offset on, so the place where a page backwards begins is found by
bisection: each step reads one message, however long the history is.
"""

from collections.abc import Iterable

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import Stored
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.messages import MessageReader
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import HistoryAnswer
from fanline.protocol.messages.commands import AskHistory

PAGE_BYTES = 256 * 1024
"""The approximate size of a page's messages together; a page has at least one message."""
_OVERHEAD = 100  # bytes of an encoded message besides what its producer wrote
_READS = 4  # pages on their way at a time


class Paging:
    """Of one worker's durable channels."""

    def __init__(self, bus: Bus, states: StreamStates, reader: MessageReader) -> None:
        self._bus = bus
        self._states = states
        self._reader = reader
        self._reading = trio.CapacityLimiter(_READS)

    async def page(self, channel: str, asked: AskHistory, epoch: str | None) -> Envelope:
        """The `ok` to a `history`. `epoch`: that of the offset that was asked for, if the client knows it.

        MessageError: BAD_MESSAGE, or BAD_OFFSET if the offset is of another epoch. BusError.
        """
        if asked.before is not None and asked.after is not None:
            raise MessageError(ErrorCode.BAD_MESSAGE, "give `before` or `after`, not both")
        async with self._reading:
            state = await self._states.now(channel)
            offset = asked.before or asked.after or 0
            if not state.epoch.covers(epoch, offset):
                raise MessageError(ErrorCode.BAD_OFFSET, f"offset {offset} is of another epoch of {channel}")
            if asked.after is not None:
                stored, more = await self._oldest_after(channel, asked.after, asked.limit)
            else:
                end = state.last + 1 if asked.before is None else min(asked.before, state.last + 1)
                stored, more = await self._newest_before(channel, end, asked.limit)
            if (await self._states.now(channel)).epoch != state.epoch:
                raise BusError(f"the stream of {channel} was recreated; try again")
            messages = []
            for envelope, position in await self._reader.read_page(stored):
                if envelope is not None:
                    envelope.offset = position.offset
                    messages.append(envelope)
        answer = Envelope(MessageType.OK, channel=channel, epoch=state.epoch.name)
        answer.data = HistoryAnswer(messages=messages, more=more).fields()
        if stored:  # not that of a message in the answer, which may lack some that cannot be read
            answer.offset = stored[0 if asked.after is None else -1].position.offset
        return answer

    async def _oldest_after(self, channel: str, offset: int, limit: int) -> tuple[list[Stored], bool]:
        page = await self._bus.read(channel, offset + 1, limit)
        fitting = _fitting(page.messages)
        return fitting, page.more > 0 or len(fitting) < len(page.messages)

    async def _newest_before(self, channel: str, end: int, limit: int) -> tuple[list[Stored], bool]:
        first, start = await self._start_before(channel, end, limit)
        newest = list[Stored]()
        while start < end:
            page = await self._bus.read(channel, start, 2 * limit)
            newest += [stored for stored in page.messages if stored.position.offset < end]
            newest = _fitting(reversed(newest[-limit:]))[::-1]
            if not page.more or not page.messages:
                break
            start = page.messages[-1].position.offset + 1
        return newest, bool(newest) and first < newest[0].position.offset

    async def _start_before(self, channel: str, end: int, limit: int) -> tuple[int, int]:
        """The offset of the first message, and from where on to read for the newest `limit` messages before `end`: at
        least these are from there on, and at most twice as many, or a few more on a busy channel, unless that is
        everything.
        """
        oldest = (await self._bus.read(channel, 1, 1)).messages
        low = first = oldest[0].position.offset if oldest else end
        high = end  # from `low` on, there are too many; from `high` on, too few
        if await self._count(channel, first, end) <= 2 * limit:
            return first, first
        while high - low > 1:
            middle = (low + high) // 2
            count = await self._count(channel, middle, end)
            if limit <= count <= 2 * limit:
                return first, middle
            low, high = (middle, high) if count > limit else (low, middle)
        return first, low

    async def _count(self, channel: str, start: int, end: int) -> int:
        """How many messages are stored from `start` on and before `end`."""
        # In this order: messages stored meanwhile make it look fewer, so that too much is read, and never too little.
        return await self._count_from(channel, start) - await self._count_from(channel, end)

    async def _count_from(self, channel: str, start: int) -> int:
        page = await self._bus.read(channel, start, 1)
        return len(page.messages) + page.more


def _fitting(messages: Iterable[Stored]) -> list[Stored]:
    """The first messages, one at least, as many as fit into a page."""
    found, size = list[Stored](), 0
    for stored in messages:
        size += len(stored.payload) + _OVERHEAD
        if found and size > PAGE_BYTES:
            break
        found.append(stored)
    return found
