"""How a joining client catches up with what comes while it is answered and sent its history."""

import itertools
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.stored import Epoch
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.history import Piece
from fanline.engine.channels.durable.log_budget import weight_of
from fanline.engine.channels.joining.history_sender import SEND_BYTES
from fanline.engine.channels.joining.join import _RETRY_SECONDS
from fanline.engine.channels.joining.start import After, Live
from tests.engine.channels.joining.join_stage import PATIENCE, Stage, a_stage, expired, gap, message


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage() as stage:
        yield stage


# --- catching up --------------------------------------------------------------------------------------------------


def publish(*offsets: int) -> Callable[[DurableChannel], None]:
    """These messages come."""

    def come(durable: DurableChannel) -> None:
        for offset in offsets:
            durable.log.append(message(offset), offset)

    return come


async def test_what_comes_during_the_answer_follows_the_history(stage: Stage) -> None:
    pieces = Piece([message(7)], 7), Piece([message(8)], 8), Piece([expired(9)], 9)
    await stage.join(After(6), *pieces, last=7, meanwhile=publish(8, 9))
    assert (stage.answer(), stage.history.asked) == ((7, "e", {"recovered": True, "count": 1}), [6, 7, 8])
    assert stage.chain() == [("pub", 7, 6), ("pub", 8, 7)]


async def test_a_gap_while_a_viewer_catches_up_is_followed_by_a_snapshot(stage: Stage) -> None:
    piece = Piece([message(9)], 9, gap(8, 8))
    await stage.join(Live(), piece, name="task:1", last=7, meanwhile=publish(8, 9))
    assert [each.get("e") or each["t"] for each in stage.received()] == ["gap", "pub", "task_snapshot"]


async def test_an_outage_while_a_client_catches_up_is_waited_out(autojump_clock: MockClock, stage: Stage) -> None:
    began = trio.current_time()
    steps = Piece([], 7), BusError("away"), BusError("away"), Piece([message(8)], 8)
    await stage.join(After(7), *steps, last=7, meanwhile=publish(8))
    assert trio.current_time() - began == pytest.approx(2 * _RETRY_SECONDS)
    assert stage.history.asked == [7, 7, 7, 7]
    assert stage.chain() == [("pub", 8, 7)]


async def test_a_stream_that_is_recreated_while_a_client_catches_up_begins_again_for_it(stage: Stage) -> None:
    def recreate(durable: DurableChannel) -> None:
        durable.doubt(1.0)
        durable.restart(Epoch("f"))
        durable.recover([])
        durable.log.append(message(1), 1)

    await stage.join(Live(), Piece([message(1)], 1), name="task:1", last=7, meanwhile=recreate)
    told = [(each.get("e") or each["t"], each.get("ep"), each.get("o")) for each in stage.received()]
    assert told == [("gap", "f", None), ("task_snapshot", None, 1), ("pub", None, 1)]
    assert stage.history.asked == [0]


async def test_what_was_read_of_a_stream_that_is_recreated_meanwhile_is_not_sent(stage: Stage) -> None:
    def recreated() -> Piece:
        stage.durable().doubt(1.0)
        stage.durable().restart(Epoch("f"))
        return Piece([message(8)], 8)

    await stage.join(After(7), Piece([], 7), recreated, last=7, meanwhile=publish(8))
    assert stage.chain() == [("gap", 0, 0)]


async def test_a_client_that_catches_up_from_the_stream_is_told_of_an_epoch_that_goes_on(stage: Stage) -> None:
    def go_on(durable: DurableChannel) -> None:
        durable.doubt(1.0)
        durable.meet(Epoch("f", {"e": 7}))
        durable.recover([])
        publish(8, 9)(durable)

    # Read from the stream, the first message of the new epoch does not tell of it as the one in the log does.
    pieces = Piece([], 7), Piece([message(8)], 8), Piece([message(9)], 9)
    await stage.join(After(7), *pieces, last=7, meanwhile=go_on)
    assert [(each["o"], each.get("ep")) for each in stage.received()] == [(8, "f"), (9, None)]


async def test_a_client_that_is_gone_is_not_caught_up(stage: Stage) -> None:
    def leave(durable: DurableChannel) -> None:
        publish(8)(durable)
        stage.outbox.life.part()

    await stage.join(After(7), Piece([], 7), last=7, meanwhile=leave)
    assert stage.history.asked == [7]


async def test_a_client_that_reads_its_history_slowly_shows_that_it_lives(stage: Stage) -> None:
    large = [message(offset, id="x" * 100_000) for offset in range(1, 11)]
    stage.outbox.life.begin(1)

    async def read_slowly() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            stage.received()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await stage.join(After(0), Piece(large, 10), last=10)
        nursery.cancel_scope.cancel()
    assert stage.outbox.backlog_bytes == 0
    assert stage.outbox.life.scope.deadline > trio.current_time() + PATIENCE / 2


async def test_a_long_history_is_sent_in_pieces_of_so_many_bytes_between_which_others_get_their_turn(
    stage: Stage, autojump_clock: MockClock
) -> None:
    sent = set[int]()
    everything = [message(offset, id="x" * 10_000) for offset in range(1, 4 * SEND_BYTES // 10_000)]
    weight = sum(map(weight_of, everything))
    received = list[tuple[str, int, int]]()

    async def others() -> None:
        while True:
            sent.add(stage.counters.deliveries)
            received.extend(stage.chain())
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await stage.join(After(0), Piece(everything, len(everything), weight=10 * weight), last=len(everything))
        nursery.cancel_scope.cancel()
    steps = [later - earlier for earlier, later in itertools.pairwise(sorted(sent | {stage.counters.deliveries}))]
    assert max(steps) <= SEND_BYTES // 10_000 + 1
    assert [offset for _, offset, _ in received + stage.chain()] == list(range(1, len(everything) + 1))
