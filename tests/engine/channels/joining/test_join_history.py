"""Which history a joining client is sent, how it is answered, and what it is refused."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.stored import Epoch, KvEntry
from fanline.engine.channels.durable.history import PIECE_BYTES, Piece
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.inbox import move_cursor, read_cursor
from fanline.engine.channels.joining.start import After, Live, StoredMessages, TaskSnapshot
from fanline.engine.channels.subscription import SubscriptionState
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.names import Bucket
from tests.engine.channels.joining.join_stage import Stage, a_stage, expired, gap, message


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage() as stage:
        yield stage


# --- what is sent and answered ------------------------------------------------------------------------------------


async def test_a_client_that_wants_only_what_comes_is_answered_with_where_that_begins(stage: Stage) -> None:
    subscription = await stage.join(Live(), name="task:1", last=7)
    assert (stage.answer(), stage.received(), stage.history.asked) == ((7, "e", None), [], [])
    assert subscription.state is SubscriptionState.ACTIVE


async def test_a_channel_without_a_history_is_joined_without_a_word_about_it(stage: Stage) -> None:
    subscription = await stage.join(After(5), name="room:a")
    assert (stage.answer(), subscription.state) == ((None, None, None), SubscriptionState.ACTIVE)


async def test_a_client_that_resumes_is_sent_what_it_lacks_following_on_what_it_has(stage: Stage) -> None:
    await stage.join(After(5), Piece([expired(6), message(7), message(8)], 8), last=8)
    assert stage.answer() == (8, "e", {"recovered": True, "count": 2})
    assert stage.chain() == [("pub", 7, 5), ("pub", 8, 7)]
    assert stage.counters.deliveries == 2


async def test_a_history_in_pieces_is_asked_for_until_it_reaches_the_newest_message(stage: Stage) -> None:
    pieces = Piece([message(6)], 6), Piece([], 8, gap(7, 8)), Piece([message(9)], 9)
    await stage.join(After(5, "e"), *pieces, last=9)
    assert stage.history.asked == [5, 6, 8]
    assert stage.answer() == (9, "e", {"recovered": False, "count": 2})
    assert stage.chain() == [("pub", 6, 5), ("gap", 7, 8), ("pub", 9, 8)]


async def test_an_offset_of_another_epoch_means_nothing_and_everything_stored_follows(stage: Stage) -> None:
    await stage.join(After(5, "old"), Piece([message(2, 0)], 3, gap(1, 1)), Piece([message(4)], 4), last=4)
    assert (stage.history.asked, stage.recovery.asked) == ([0, 3], [])
    assert stage.answer() == (4, "e", {"recovered": False, "count": 2})
    epoch_gap, first, second = stage.received()
    assert (epoch_gap["ep"], epoch_gap["d"]) == ("e", {"from": 0, "to": 0, "reason": "epoch"})
    assert [(each["o"], each["p"]) for each in (first, second)] == [(2, 0), (4, 3)]


async def test_everything_that_is_stored_misses_nothing_that_is_gone_before_it(stage: Stage) -> None:
    await stage.join(StoredMessages(), Piece([message(5)], 5, gap(1, 4)), Piece([message(9)], 9, gap(6, 8)), last=9)
    assert stage.answer() == (9, "e", {"recovered": False, "count": 2})
    assert stage.chain() == [("pub", 5, 0), ("gap", 6, 8), ("pub", 9, 8)]


async def test_a_stream_that_is_recreated_while_its_history_is_read_is_a_gap(stage: Stage) -> None:
    def recreated() -> Piece:
        stage.durable().doubt(1.0)
        stage.durable().restart(Epoch("f"))
        return Piece([], 0)

    await stage.join(After(5), Piece([message(6)], 6), recreated, last=9)
    assert stage.answer() == (0, "f", {"recovered": False, "count": 0})
    (told,) = stage.received()
    assert (told["ep"], told["d"]) == ("f", {"from": 0, "to": 0, "reason": "epoch"})


async def test_what_a_recreated_stream_holds_already_follows_its_gap(stage: Stage) -> None:
    def recreated() -> Piece:
        stage.durable().doubt(1.0)
        stage.durable().restart(Epoch("f"))
        stage.durable().recover([])
        for offset in (1, 2):  # other clients have been sent them
            stage.durable().log.append(message(offset), offset)
        return Piece([], 2)

    await stage.join(After(5), Piece([message(6)], 6), recreated, Piece([message(1), message(2)], 2), last=9)
    assert stage.answer() == (0, "f", {"recovered": False, "count": 0})
    assert stage.chain() == [("gap", 0, 0), ("pub", 1, 0), ("pub", 2, 1)]


# --- the newest messages ------------------------------------------------------------------------------------------


async def opened(stage: Stage, *envelopes: Envelope) -> None:
    """The channel is open, and its log holds these."""
    await stage.join(After(5), Piece([], 5), last=5)
    stage.answers.clear()
    stage.history.asked.clear()
    for envelope in envelopes:
        stage.durable().log.append(envelope, envelope.offset or 0)


async def test_the_newest_messages_come_from_the_log_if_it_has_enough(stage: Stage) -> None:
    await opened(stage, *(message(offset) for offset in (6, 7, 8)))
    await stage.join(StoredMessages(newest=3))
    assert stage.answer() == (8, "e", {"recovered": True, "count": 3})
    await stage.join(StoredMessages(newest=2))
    assert stage.history.asked == []
    assert [offset for _, offset, _ in stage.chain()] == [6, 7, 8, 7, 8]


async def test_the_newest_messages_are_those_that_have_not_expired(stage: Stage) -> None:
    await opened(stage, message(6), expired(7), message(8))
    await stage.join(StoredMessages(newest=3), Piece([message(5), message(6), expired(7), message(8)], 8))
    assert stage.answer() == (8, "e", {"recovered": True, "count": 3})
    assert stage.chain() == [("pub", 5, 4), ("pub", 6, 5), ("pub", 8, 6)]


async def test_of_the_newest_messages_a_gap_is_none(stage: Stage) -> None:
    pieces = Piece([message(5)], 5, gap(1, 4)), Piece([message(9)], 9, gap(6, 8))
    await stage.join(StoredMessages(newest=5), *pieces, last=9)
    assert stage.history.asked == [0, 5]
    assert stage.answer() == (9, "e", {"recovered": True, "count": 2})
    assert [kind for kind, _, _ in stage.chain()] == ["pub", "pub"]


# --- tasks and inboxes --------------------------------------------------------------------------------------------


async def test_a_viewer_begins_with_a_snapshot_of_as_many_lines_as_it_wants(stage: Stage) -> None:
    await stage.join(TaskSnapshot(5), name="task:1", last=7)
    assert stage.answer() == (7, "e", {"recovered": True, "count": 1})
    (told,) = stage.received()
    assert (told["e"], told["o"], told["c"]) == ("task_snapshot", 7, "task:1")


async def test_a_gap_on_a_task_is_followed_by_a_snapshot(stage: Stage) -> None:
    await stage.join(After(5), Piece([message(9)], 9, gap(6, 8)), name="task:1", last=9)
    assert [each.get("e") or each["t"] for each in stage.received()] == ["gap", "pub", "task_snapshot"]
    assert stage.answer() == (9, "e", {"recovered": False, "count": 2})


async def test_the_snapshot_of_a_channel_that_is_no_task_is_its_newest_message(stage: Stage) -> None:
    await stage.join(TaskSnapshot(5), Piece([message(8), message(9)], 9), last=9)
    assert [offset for _, offset, _ in stage.chain()] == [9]


async def test_an_inbox_begins_behind_what_its_user_has_acknowledged(stage: Stage) -> None:
    await move_cursor(stage.bus, "user:ann", 8, Epoch("e"))
    await stage.join(Live(), Piece([message(9)], 9), last=9)
    assert (stage.history.asked, stage.answer()) == ([8], (9, "e", {"recovered": True, "count": 1}))


async def test_what_is_acknowledged_of_an_inbox_says_nothing_once_its_stream_was_recreated(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move_cursor(stage.bus, "user:ann", 8, Epoch("e"))
    get = stage.bus.kv_get

    async def get_slowly(bucket: Bucket, key: str) -> KvEntry | None:
        entry, durable = await get(bucket, key), stage.durable()
        durable.doubt(1.0)
        durable.restart(Epoch("f"))
        durable.recover([], lost_until=9)
        return entry

    monkeypatch.setattr(stage.bus, "kv_get", get_slowly)
    await stage.join(Live(), Piece([message(9)], 9), last=9)
    assert stage.history.asked == [0]
    assert stage.chain() == [("gap", 0, 0), ("pub", 9, 0)]


async def test_an_inbox_of_which_nothing_is_acknowledged_begins_with_everything_stored(stage: Stage) -> None:
    await stage.join(Live(), Piece([message(9)], 9, gap(1, 8)), last=9)
    assert (stage.history.asked, stage.answer()) == ([0], (9, "e", {"recovered": True, "count": 1}))


async def test_a_client_that_names_a_position_in_an_inbox_begins_there(stage: Stage) -> None:
    await move_cursor(stage.bus, "user:ann", 8, Epoch("e"))
    await stage.join(After(4), Piece([], 9), last=9)
    assert stage.history.asked == [4]


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_an_offset_that_the_channel_never_had_is_refused_and_nothing_is_held(stage: Stage) -> None:
    with pytest.raises(MessageError) as caught:
        await stage.join(After(9, "e"), last=8)
    assert (caught.value.code, str(caught.value)) == (
        ErrorCode.BAD_OFFSET,
        "offset 9 lies in the future of user:ann, whose newest is 8",
    )
    assert (stage.answers, stage.received(), stage.counters.channels) == ([], [], 0)


async def test_an_offset_that_the_stream_knows_is_taken_and_one_that_is_here_is_not_asked_for(stage: Stage) -> None:
    stage.recovery.known = [9]
    await stage.join(After(9), Piece([], 9), last=8)
    await stage.join(After(8), Piece([], 8), last=8)
    assert stage.recovery.asked == [9]


async def test_a_channel_that_is_not_compared_in_time_is_unavailable(autojump_clock: MockClock, stage: Stage) -> None:
    stage.recovery.is_away = True
    began = trio.current_time()
    with pytest.raises(BusError, match=r"^user:ann is being compared with its stream; try again$"):
        await stage.join(After(1))
    assert trio.current_time() - began == pytest.approx(3)
    assert (stage.answers, stage.counters.channels) == ([], 0)


async def test_a_history_that_cannot_be_read_changes_nothing(stage: Stage) -> None:
    with pytest.raises(BusError):
        await stage.join(After(1), BusError("away"), last=5)
    assert (stage.answers, stage.received(), stage.counters.channels) == ([], [], 0)


async def test_a_steady_channel_is_held_inside_the_block_alone(stage: Stage) -> None:
    async with stage.joining.steady("task:1") as durable:
        assert (durable.state, stage.counters.channels) == (DurableState.STEADY, 1)
    assert stage.counters.channels == 0


async def test_a_long_history_is_answered_with_its_first_piece_and_the_snapshot_after_a_gap_comes_last(
    stage: Stage,
) -> None:
    pieces = Piece([message(9, 8)], 9, gap(8, 8), weight=PIECE_BYTES), Piece([message(10)], 10)
    await stage.join(After(7), *pieces, name="task:1", last=10)
    assert (stage.answer(), stage.history.asked) == ((9, "e", {"recovered": False, "count": 1}), [7, 9])
    assert [each.get("e") or each["t"] for each in stage.received()] == ["gap", "pub", "pub", "task_snapshot"]


# --- epochs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "known"), [(5, True), (6, False)])
async def test_an_offset_of_an_earlier_epoch_is_good_up_to_where_that_one_agrees(
    stage: Stage, offset: int, known: bool
) -> None:
    stage.recovery.epoch = Epoch("f", {"e": 5})
    await stage.join(After(offset, "e"), Piece([message(9)], 9), last=9)
    kinds = [each["t"] for each in stage.received()]
    assert kinds == (["pub"] if known else ["gap", "pub"])
    assert stage.history.asked == [offset if known else 0]


@pytest.mark.parametrize(
    ("epoch", "first"), [(Epoch("e"), 8), (Epoch("f", {"e": 5}), 5), (Epoch("f", {"e": 8}), 8), (Epoch("f"), 0)]
)
async def test_an_inbox_goes_on_from_what_was_acknowledged_in_an_earlier_epoch_as_far_as_that_one_agrees(
    stage: Stage, epoch: Epoch, first: int
) -> None:
    await move_cursor(stage.bus, "user:ann", 8, Epoch("e"))
    stage.recovery.epoch = epoch
    await stage.join(Live(), Piece([message(9)], 9), last=9)
    assert stage.history.asked == [first]


async def test_an_acknowledgement_in_a_later_epoch_counts_even_if_its_offset_is_smaller(stage: Stage) -> None:
    later = Epoch("f", {"e": 5})
    await move_cursor(stage.bus, "user:ann", 8, Epoch("e"))
    await move_cursor(stage.bus, "user:ann", 6, later)
    assert await read_cursor(stage.bus, "user:ann", later) == 6
