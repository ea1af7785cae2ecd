"""A durable channel in detail: its fold, its doubts, and when nothing can have left its stream."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from fanline.engine.bus.stored import Epoch, StreamPosition, StreamState
from fanline.engine.channels.durable.channel import _CLOCK_SKEW, DurableChannel
from fanline.engine.channels.durable.held import HELD_MOST
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.durable.log import Readable
from fanline.engine.faults import fault_gap
from fanline.engine.namespaces import Namespace
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.commands import DEFAULT_LINES
from fanline.protocol.messages.notices import GapReason

CHANNEL = "task:1"
NOW = 1_000_000.0


class RecordingFold:
    """Takes every message but those at `unfit` offsets, and notes what it is asked."""

    def __init__(self, unfit: Sequence[int] = ()) -> None:
        self.taken: list[tuple[object, int]] = []
        self.restarts = 0
        self.offset = 0
        self._unfit = unfit

    def take(self, envelope: Envelope, offset: int) -> Envelope | None:
        self.taken.append((envelope.value, offset))
        return None if offset in self._unfit else Envelope(MessageType.PUB, channel=CHANNEL, data=f"told {offset}")

    def snapshot_message(self, lines: int, offset: int) -> Envelope:
        return Envelope(MessageType.PUB, channel=CHANNEL, event="snapshot", offset=offset, data=lines)

    def restart(self, *, forget: bool) -> None:
        self.restarts += 1


def channel_of(fold: RecordingFold | None = None, **namespace: Any) -> DurableChannel:
    """An open channel that has everything up to 0."""
    channel = DurableChannel(CHANNEL, Namespace(durable=True, **namespace), 100, fold)
    assert channel.open(Epoch("e"), 0) == []
    return channel


def message(offset: int, previous: int = 0) -> Readable:
    return Envelope(MessageType.PUB, channel=CHANNEL, data=offset), StreamPosition(offset, previous, "")


def told(envelopes: Sequence[Envelope]) -> list[tuple[str | None, object, int | None]]:
    """(what, its data, its offset) of each."""
    return [(each.event or each.type, each.value, each.offset) for each in envelopes]


# --- the fold -----------------------------------------------------------------------------------------------------


def test_each_message_goes_through_the_fold_and_out_as_the_fold_tells_it() -> None:
    fold = RecordingFold(unfit=[2])
    channel = channel_of(fold)
    out = [told(channel.receive(*message(offset, offset - 1))) for offset in (1, 2, 3)]
    assert out == [[("pub", "told 1", 1)], [], [("pub", "told 3", 3)]]
    assert fold.taken == [(1, 1), (2, 2), (3, 3)]
    assert ([each.previous for each in channel.log.all()], channel.last) == ([0, 1], 3)


def test_an_unreadable_message_is_passed_over_and_not_folded() -> None:
    fold = RecordingFold()
    channel = channel_of(fold)
    assert channel.receive(None, StreamPosition(4, 0, "")) == []
    assert (fold.taken, channel.last) == ([], 4)


def test_a_snapshot_is_of_everything_up_to_now_with_the_lines_that_are_asked_for() -> None:
    channel = channel_of(RecordingFold())
    channel.receive(*message(7))
    assert told([channel.snapshot(), channel.snapshot(3)]) == [("snapshot", DEFAULT_LINES, 7), ("snapshot", 3, 7)]


def test_a_snapshot_follows_a_gap_and_nothing_else() -> None:
    channel = channel_of(RecordingFold())
    channel.doubt(NOW)
    assert told(channel.recover([message(2)])) == [("pub", "told 2", 2)]
    channel.doubt(NOW)
    gap = {"from": 3, "to": 5, "reason": GapReason.EXPIRED}
    out = [("gap", gap, None), ("pub", "told 6", 6), ("snapshot", DEFAULT_LINES, 6)]
    assert told(channel.recover([message(6)], lost_until=5)) == out


def test_a_snapshot_waits_until_all_that_the_fold_knows_of_was_handed_out() -> None:
    fold = RecordingFold()
    channel = channel_of(fold)
    channel.doubt(NOW)
    fold.offset = 8  # the task record knows of it already
    gap = {"from": 1, "to": 5, "reason": GapReason.EXPIRED}
    assert told(channel.advance([message(6)], lost_until=5)) == [("gap", gap, None), ("pub", "told 6", 6)]
    assert told(channel.advance([message(7)])) == [("pub", "told 7", 7)]
    states = [channel.state]
    out = [("pub", "told 8", 8), ("pub", "told 9", 9), ("snapshot", DEFAULT_LINES, 9)]
    assert told(channel.recover([message(8), message(9)])) == out
    assert [*states, channel.state] == [DurableState.RECOVERING, DurableState.STEADY]


def test_what_the_fold_knows_of_and_the_stream_no_longer_has_is_gone() -> None:
    fold = RecordingFold()
    channel = channel_of(fold)
    channel.doubt(NOW)
    fold.offset = 8
    gap = {"from": 7, "to": 8, "reason": GapReason.EXPIRED}
    out = [("pub", "told 6", 6), ("gap", gap, None), ("snapshot", DEFAULT_LINES, 8)]
    assert told(channel.recover([message(6)])) == out


def test_what_we_fail_to_hand_out_is_a_gap_up_to_the_newest_that_is_known() -> None:
    channel = channel_of()
    channel.receive(*message(1))
    channel.doubt(NOW)
    nothing_known = {"reason": GapReason.FAULT}
    assert (told(channel.give_up()), channel.state) == ([("gap", nothing_known, None)], DurableState.RECOVERING)
    for until, held, end in ((0, 3, 3), (6, 5, 6), (7, 9, 9)):
        channel.doubt(NOW)
        channel.receive(*message(held, held - 1))
        gap = {"from": channel.last + 1, "to": end, "reason": GapReason.FAULT}
        assert told(channel.give_up(until)) == [("gap", gap, None)]
        assert (channel.last, channel.heard, channel.state) == (end, 0, DurableState.STEADY)


def test_without_a_fold_a_gap_stands_alone() -> None:
    channel = channel_of()
    channel.doubt(NOW)
    assert [each.type for each in channel.recover([message(6)], lost_until=5)] == ["gap", "pub"]


def test_a_recreated_stream_is_announced_by_a_gap_of_the_new_epoch_and_begins_at_0() -> None:
    fold = RecordingFold()
    channel = channel_of(fold)
    channel.receive(*message(7))
    channel.doubt(NOW)
    channel.receive(*message(1))
    out = channel.restart(Epoch("f"))
    gap = {"from": 0, "to": 0, "reason": GapReason.EPOCH}
    assert told(out) == [("gap", gap, None), ("snapshot", DEFAULT_LINES, 0)]
    assert (out[0].channel, out[0].epoch) == (CHANNEL, "f")
    assert (channel.epoch, channel.last, channel.heard, fold.restarts) == (Epoch("f"), 0, 0, 1)
    assert channel.state is DurableState.RECOVERING
    assert told(channel.recover([message(2)])) == [("pub", "told 2", 2)]


# --- holes --------------------------------------------------------------------------------------------------------


def test_a_message_after_a_hole_is_held_and_so_are_all_later_ones() -> None:
    channel = channel_of()
    channel.receive(*message(1))
    assert channel.state is DurableState.STEADY
    assert [channel.receive(*message(*each)) for each in ((3, 2), (4, 3))] == [[], []]
    assert (channel.state, channel.last, channel.heard) == (DurableState.RECOVERING, 1, 4)
    assert [each.offset for each in channel.recover([message(2)], read_until=2)] == [2, 3, 4]
    assert (channel.state, channel.heard) == (DurableState.STEADY, 0)


@pytest.mark.parametrize("offset", [1, 2])
def test_a_message_that_is_not_newer_than_the_last_one_is_a_doubt(offset: int) -> None:
    channel = channel_of()
    channel.receive(*message(2))
    assert channel.receive(*message(offset)) == []
    assert channel.state is DurableState.RECOVERING


def test_what_another_message_follows_on_and_the_stream_does_not_hold_is_gone() -> None:
    channel = channel_of()
    channel.doubt(NOW)
    channel.receive(*message(9, 8))
    gap, after = channel.recover([message(3), message(9)], read_until=9)[1:]
    assert (gap.value["from"], gap.value["to"], after.offset) == (4, 8, 9)


def test_what_was_held_and_is_recovered_too_is_handed_out_once() -> None:
    channel = channel_of()
    channel.doubt(NOW)
    for each in ((1, 0), (2, 1), (4, 2)):
        channel.receive(*message(*each))
    assert [each.offset for each in channel.recover([message(1), message(2)], read_until=2)] == [1, 2, 4]
    assert channel.state is DurableState.STEADY


def test_no_more_messages_are_held_than_the_stream_can_be_asked_for_again() -> None:
    channel = channel_of()
    channel.doubt(NOW)
    for offset in range(1, HELD_MOST + 3):
        channel.receive(*message(offset, offset - 1))
    assert (channel.heard, len(list(channel._held))) == (HELD_MOST + 2, HELD_MOST)


def test_what_came_after_the_stream_was_read_is_not_taken_for_gone() -> None:
    channel = channel_of()
    channel.doubt(NOW)
    channel.receive(*message(9, 8))
    assert [each.offset for each in channel.recover([message(3)], read_until=5)] == [3]
    assert channel.state is DurableState.RECOVERING


def test_a_gap_forgets_that_the_bottom_of_the_stream_was_read() -> None:
    channel = channel_of()
    channel.bottom = 0
    channel.doubt(NOW)
    channel.recover([message(6)], lost_until=5)
    bottom: int | None = channel.bottom
    assert (bottom, channel.log.floor) == (None, 5)


# --- doubts -------------------------------------------------------------------------------------------------------


def test_of_several_doubts_the_oldest_stands_until_the_channel_is_steady() -> None:
    channel = channel_of()
    seen = []
    for sound_until in (50.0, 40.0, 60.0):
        channel.doubt(sound_until)
        seen.append(channel.sound_until)
    channel.wake()
    seen.append(channel.sound_until)
    channel.recover([])
    channel.wake()
    assert (seen, channel.sound_until) == ([50.0, 40.0, 40.0, 40.0], 0.0)


async def test_who_waits_for_a_steady_channel_looks_again_at_each_attempt() -> None:
    channel, steady = channel_of(), []
    channel.doubt(NOW)

    async def wait() -> None:
        await channel.wait_steady()
        steady.append(channel.state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        channel.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert steady == []
        channel.recover([])
        channel.wake()
    assert steady == [DurableState.STEADY]


# --- whether anything is gone -------------------------------------------------------------------------------------

STREAM = StreamState(Epoch("e"), 50, 60, NOW, 1000)  # its first message is newer than all we have


def complete(stream: StreamState = STREAM, found: int = 0, sound_until: float = NOW - 10, **namespace: Any) -> bool:
    """Of a channel that has everything up to 40; its messages may be 100 s old, and the stream 3000 bytes large."""
    channel = channel_of(**{"history": 5, "max_age": 100.0, "max_bytes": 3000} | namespace)
    channel.receive(*message(40))
    channel.doubt(sound_until)
    return channel.is_complete(stream, found, NOW)


def test_a_channel_with_as_many_messages_as_it_may_have_can_have_lost_some() -> None:
    assert (complete(found=4), complete(found=5)) == (True, False)


def test_a_stream_that_begins_right_after_the_last_message_has_lost_none_after_it() -> None:
    assert complete(STREAM._replace(first=41), sound_until=NOW - 1000)
    assert not complete(STREAM._replace(first=42), sound_until=NOW - 1000)


def test_what_is_younger_than_the_greatest_age_cannot_have_expired() -> None:
    edge = NOW - 100.0 + _CLOCK_SKEW
    assert (complete(sound_until=edge + 0.5), complete(sound_until=edge)) == (True, False)


def test_a_stream_less_than_half_full_has_dropped_nothing_for_its_size() -> None:
    assert (complete(STREAM._replace(size=1499)), complete(STREAM._replace(size=1500))) == (True, False)
    assert complete(STREAM._replace(size=10**9), max_bytes=-1)
    assert not complete(STREAM._replace(size=0), max_bytes=0)


def test_a_stream_that_still_has_an_older_message_has_dropped_no_younger_one() -> None:
    sound = NOW - 1000  # nothing else speaks for it
    assert complete(STREAM._replace(first_time=sound - _CLOCK_SKEW - 0.5), sound_until=sound)
    assert not complete(STREAM._replace(first_time=sound - _CLOCK_SKEW), sound_until=sound)


def test_an_epoch_that_goes_on_is_told_by_the_first_message_in_it_alone() -> None:
    channel = channel_of()
    (before,) = channel.receive(*message(1))
    channel.doubt(NOW)
    assert channel.meet(Epoch("f", {"e": 1})) is None
    (first, second) = channel.recover([message(2), message(3)])
    assert [each.epoch for each in (before, first, second)] == [None, "f", None]
    channel.doubt(NOW)
    assert channel.meet(Epoch("g", {"e": 1, "f": 3})) is None
    assert [each.epoch for each in channel.recover([message(4)])] == ["g"]
    assert [each.epoch for each in channel.log.all()] == [None, None, None, "g"]  # nobody is told of `f` any more
    assert channel.lives == 0


def test_a_gap_in_the_place_of_a_message_does_not_tell_of_an_epoch_but_the_message_after_it() -> None:
    channel = channel_of()
    channel.receive(*message(1))
    channel.doubt(NOW)
    assert channel.meet(Epoch("f", {"e": 1})) is None
    unreadable = (fault_gap(channel.name, 2), message(2)[1])
    gap, after = channel.recover([unreadable, message(3)])
    assert (gap.type, gap.epoch, after.epoch) == ("gap", None, "f")


def test_an_epoch_that_does_not_reach_up_to_what_was_handed_out_begins_anew() -> None:
    channel = channel_of()
    channel.receive(*message(5))
    channel.doubt(NOW)
    out = channel.meet(Epoch("f", {"e": 4}))
    assert out is not None
    assert [(each.type, each.epoch) for each in out] == [("gap", "f")]
    assert (channel.last, channel.lives) == (0, 1)
    assert [each.epoch for each in channel.recover([message(1)])] == [None]  # the gap has said it
