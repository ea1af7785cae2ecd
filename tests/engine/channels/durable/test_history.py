"""History step by step: what is read from the stream, what a client is sent of it, and what the log keeps."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
from msgspec import Raw

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.stored import READ_BATCH, Epoch, Page, Stored, StreamPosition, StreamState
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.history import History, Piece
from fanline.engine.channels.durable.log import Readable
from fanline.engine.namespaces import Namespace
from fanline.protocol.envelope import Envelope, MessageType

CHANNEL = "task:1"
UNREADABLE = b"?"


class ModelStream:
    """Bus, state of the stream, reader and recovery in one: the stream has messages at `offsets`."""

    def __init__(self, *offsets: int, first: int = 1, epoch: str = "e", batch: int = 1000) -> None:
        self.offsets = offsets
        self.unreadable: set[int] = set()
        self.first = first
        self.epoch = epoch
        self.batch = batch
        self.reads: list[int] = []
        self.recovering: list[DurableChannel] = []

    async def read(self, channel: str, start: int) -> Page:
        await trio.lowlevel.checkpoint()
        assert channel == CHANNEL
        self.reads.append(start)
        found = [offset for offset in self.offsets if offset >= start]
        stored = [
            Stored(channel, UNREADABLE if offset in self.unreadable else b"1", StreamPosition(offset, 0, ""))
            for offset in found
        ]
        return Page(stored[: self.batch], max(0, len(stored) - self.batch))

    async def now(self, channel: str) -> StreamState:
        return StreamState(Epoch(self.epoch), self.first, self.offsets[-1], 0.0, 0)

    async def read_page(self, page: Sequence[Stored]) -> list[Readable]:
        await trio.lowlevel.checkpoint()
        return [(self._read(stored), stored.position) for stored in page]

    def _read(self, stored: Stored) -> Envelope | None:
        data = Raw(b"%d" % stored.position.offset)
        return None if stored.payload == UNREADABLE else Envelope(MessageType.PUB, channel=CHANNEL, data=data)

    def recover_soon(self, channel: DurableChannel) -> None:
        self.recovering.append(channel)

    def history(self) -> History:
        own = cast("Any", self)
        return History(own, own, own, own)


def channel_of(*offsets: int, floor: int = 0, history: int = 100, log_limit: int = 100) -> DurableChannel:
    """A channel whose log begins after `floor` and has messages at these offsets."""
    channel = DurableChannel(CHANNEL, Namespace(durable=True, history=history), log_limit)
    channel.open(Epoch("e"), floor)
    for offset in offsets:
        channel.log.append(Envelope(MessageType.PUB, channel=CHANNEL), offset)
    return channel


def shown(piece: Piece) -> tuple[list[tuple[int | None, int | None]], int, tuple[int, int] | None]:
    """(offset, previous) of each message; what is reached; the gap."""
    gap = None if piece.gap is None else (piece.gap.value["from"], piece.gap.value["to"])
    assert piece.gap is None or piece.all == [piece.gap, *piece.messages]
    assert piece.gap is not None or piece.all == piece.messages
    return [(each.offset, each.previous) for each in piece.messages], piece.reached, gap


def held(channel: DurableChannel) -> tuple[int, list[int | None]]:
    """Floor and offsets of the log."""
    return channel.log.floor, [each.offset for each in channel.log.all()]


# --- from the log -------------------------------------------------------------------------------------------------


async def test_what_the_log_holds_is_not_read_from_the_stream() -> None:
    stream, channel = ModelStream(6, 7), channel_of(6, 7, floor=5)
    assert shown(await stream.history().after(channel, 5)) == ([(6, 5), (7, 6)], 7, None)
    assert shown(await stream.history().after(channel, 7)) == ([], 7, None)
    assert stream.reads == []


async def test_where_the_bottom_of_the_stream_is_known_the_rest_is_a_gap() -> None:
    stream, channel = ModelStream(9), channel_of(6, 7, floor=5)
    channel.bottom = 5
    assert shown(await stream.history().after(channel, 2)) == ([(6, 5), (7, 6)], 7, (3, 5))
    quiet = channel_of(floor=5)
    quiet.bottom = 5
    assert shown(await stream.history().after(quiet, 2)) == ([], 5, (3, 5))
    assert stream.reads == []


async def test_a_bottom_that_the_log_no_longer_reaches_says_nothing() -> None:
    stream, channel = ModelStream(6, 7), channel_of(6, 7, floor=5, log_limit=1)
    channel.bottom = 5
    history = stream.history()
    assert shown(await history.after(channel, 4)) == ([(6, 0)], 6, None)
    assert shown(await history.after(channel, 6)) == ([(7, 6)], 7, None)
    assert stream.reads == [1]


# --- from the stream ----------------------------------------------------------------------------------------------


async def test_a_client_of_a_quiet_channel_gets_what_it_lacks_and_the_log_keeps_it() -> None:
    stream, channel = ModelStream(2, 4, 6, 8), channel_of(floor=8)
    assert shown(await stream.history().after(channel, 4)) == ([(6, 4), (8, 6)], 8, None)
    assert (stream.reads, held(channel), channel.bottom) == ([4], (4, [6, 8]), None)
    assert shown(await stream.history().after(channel, 5)) == ([(6, 4), (8, 6)], 8, None)
    assert stream.reads == [4]


async def test_a_client_that_has_nothing_gets_everything() -> None:
    stream, channel = ModelStream(2, 4), channel_of(floor=4)
    assert shown(await stream.history().after(channel, 0)) == ([(2, 0), (4, 2)], 4, None)
    assert stream.reads == [1]


async def test_the_second_client_that_looks_back_has_everything_read_for_all_later_ones() -> None:
    stream, channel = ModelStream(2, 4, 6, 8, 9), channel_of(9, floor=8)
    assert shown(await stream.history().after(channel, 6)) == ([(8, 6), (9, 8)], 9, None)
    assert (stream.reads, held(channel), channel.bottom) == ([1], (0, [2, 4, 6, 8, 9]), 0)


@pytest.mark.parametrize(("history", "reads"), [(READ_BATCH, [1]), (READ_BATCH + 1, [6])])
async def test_everything_is_read_only_where_one_request_may_be_enough(history: int, reads: list[int]) -> None:
    stream, channel = ModelStream(6, 8, 9), channel_of(9, floor=8, history=history)
    await stream.history().after(channel, 6)
    assert stream.reads == reads


async def test_where_one_request_is_not_enough_only_what_the_client_lacks_is_read() -> None:
    stream, channel = ModelStream(1, 2, 3, 4, 5, batch=3), channel_of(5, floor=4)
    assert shown(await stream.history().after(channel, 3)) == ([(4, 3), (5, 4)], 5, None)
    assert (stream.reads, held(channel), channel.bottom) == ([1, 3], (3, [4, 5]), None)


async def test_a_history_longer_than_a_page_comes_in_pieces_each_following_on_the_one_before() -> None:
    stream, channel = ModelStream(2, 4, 6, 8, batch=2), channel_of(floor=8)
    history = stream.history()
    assert shown(await history.after(channel, 0)) == ([(2, 0), (4, 2)], 4, None)
    assert held(channel) == (8, [])
    assert shown(await history.after(channel, 4)) == ([(6, 4)], 6, None)
    assert shown(await history.after(channel, 6)) == ([(8, 6)], 8, None)
    assert held(channel) == (6, [8])


async def test_an_unreadable_message_is_passed_over_and_nothing_is_missing() -> None:
    stream, channel = ModelStream(2, 4, 6), channel_of(floor=6)
    stream.unreadable = {4}
    assert shown(await stream.history().after(channel, 1)) == ([(2, 1), (6, 2)], 6, None)
    pieces, apart = ModelStream(2, 4, 6, 8, batch=3), channel_of(floor=8)
    pieces.unreadable = {4}
    assert shown(await pieces.history().after(apart, 0)) == ([(2, 0), (6, 2)], 6, None)


async def test_what_comes_while_the_stream_answers_is_not_sent_twice() -> None:
    stream, channel = ModelStream(4, 6, 8), channel_of(floor=6)
    pieces: list[Piece] = []

    async def ask() -> None:
        pieces.append(await stream.history().after(channel, 4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.lowlevel.checkpoint()
        channel.log.append(Envelope(MessageType.PUB, channel=CHANNEL), 8)
    assert shown(pieces[0]) == ([(6, 4), (8, 6)], 8, None)


# --- what is gone -------------------------------------------------------------------------------------------------


async def test_what_the_stream_no_longer_holds_is_a_gap_up_to_its_first_message() -> None:
    stream, channel = ModelStream(6, 8, first=5), channel_of(floor=8)
    assert shown(await stream.history().after(channel, 2)) == ([(6, 4), (8, 6)], 8, (3, 5))
    assert held(channel) == (4, [6, 8])


async def test_a_stream_that_reaches_back_to_the_client_has_lost_nothing_it_lacks() -> None:
    for first, gap in ((3, None), (4, (3, 5))):
        stream, channel = ModelStream(6, 8, first=first), channel_of(floor=8)
        assert shown(await stream.history().after(channel, 2))[2] == gap


@pytest.mark.parametrize(("history", "gap", "floor"), [(3, None, 2), (2, (3, 5), 5)])
async def test_a_channel_that_is_full_has_lost_what_came_before_its_first_message(
    history: int, gap: tuple[int, int] | None, floor: int
) -> None:
    stream, channel = ModelStream(6, 8), channel_of(floor=8, history=history)
    assert shown(await stream.history().after(channel, 2))[2] == gap
    assert held(channel) == (floor, [6, 8])


async def test_messages_of_a_later_page_count_towards_a_full_channel() -> None:
    stream, channel = ModelStream(6, 8, 9, batch=2), channel_of(floor=9, history=3)
    assert shown(await stream.history().after(channel, 2)) == ([(6, 2), (8, 6)], 8, (3, 5))


async def test_a_channel_of_which_nothing_is_left_is_a_gap_up_to_the_log() -> None:
    stream, channel = ModelStream(20, first=20), channel_of(9, floor=8)
    assert shown(await stream.history().after(channel, 2)) == ([(9, 8)], 9, (3, 8))
    assert (held(channel), channel.bottom) == ((8, [9]), 8)


async def test_a_recreated_stream_cannot_be_read_and_is_recovered_soon() -> None:
    stream, channel = ModelStream(6, epoch="f"), channel_of(floor=8)
    with pytest.raises(BusError, match=rf"^the stream of {CHANNEL} was recreated; try again$"):
        await stream.history().after(channel, 2)
    assert (stream.recovering, held(channel)) == ([channel], (8, []))
