"""One channel of a client: history and live messages, for several local subscriptions at once."""

import fanline
from fanline.client.subscriptions.channel_states import CHANNEL_TRANSITIONS, ChannelState
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.subscriptions.recording_shell import (
    CHANNEL,
    LOST,
    RecordingShell,
    last,
    live_shell,
)


def test_one_that_wants_history_costs_another_nothing_that_is_behind() -> None:
    shell, behind = live_shell(100)
    tail = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 120, count=2)  # the new beginning drops what was on its way to the first
    again = shell.take_sub()
    assert (again.offset, again.data) == (100, None)
    shell.message(110, 100)
    shell.message(120, 110)
    assert (behind.got, tail.got) == ([110, 120], [110, 120])
    shell.accept(again, 121, count=3)
    for offset, previous in ((110, 100), (120, 110), (121, 120)):
        shell.message(offset, previous)
    assert (behind.got, tail.got) == ([110, 120, 121], [110, 120, 121])
    assert not shell.sent


def test_one_that_begins_at_a_newer_position_costs_another_nothing_that_is_behind() -> None:
    shell, behind = live_shell(100)
    newer = shell.subscribe(StartPosition(fanline.Position(110, "one")))
    shell.accept(shell.take_sub(), 120, count=1)
    again = shell.take_sub()
    shell.message(120, 110)
    assert (again.offset, behind.got, newer.got) == (100, [], [120])


def test_a_resume_asks_from_the_one_furthest_behind() -> None:
    shell, _ = live_shell(100)
    shell.subscribe(last(1))
    shell.accept(shell.take_sub(), 120, count=1)
    shell.message(120, 119)
    shell.reconnect()
    assert shell.take_sub().offset == 100


def test_a_start_position_that_was_not_served_before_the_connection_was_lost_is_asked_for_again() -> None:
    shell = RecordingShell()
    shell.subscribe(last(5))
    assert shell.take_sub().value == {"last": 5}
    shell.reconnect()
    shell.accept(shell.take_sub(), 10, count=5)
    assert not shell.sent
    shell.reconnect()  # before the first of the five came
    assert shell.take_sub().value == {"last": 5}


def test_a_history_that_was_cut_off_is_given_once_whatever_comes_for_others_in_between() -> None:
    shell, live = live_shell(5)
    tail = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 5, count=2)
    shell.reconnect()  # before the first of the two came
    shell.accept(shell.take_sub(), 7, count=2)
    shell.message(6, 5)
    shell.message(7, 6)
    assert (live.got, tail.got) == ([6, 7], [])
    shell.accept(shell.take_sub(), 7, count=2)
    shell.message(6, 5)
    shell.message(7, 6)
    assert (live.got, tail.got) == ([6, 7], [6, 7])


def test_a_second_subscription_to_a_live_channel_begins_where_the_channel_is() -> None:
    shell, first = live_shell(5)
    shell.message(6, 5)
    second = shell.subscribe()
    shell.accept(shell.take_sub())
    assert second.begun == [fanline.Position(6, "one")]
    shell.message(7, 6)
    assert (first.got, second.got) == ([6, 7], [7])


def test_a_second_subscription_begins_where_the_channel_is_even_if_the_first_has_not_got_there() -> None:
    shell, first = live_shell(5)
    shell.message(9, 8)
    shell.refuse(shell.take_sub(), "unavailable")
    second = shell.subscribe()
    shell.wait(10)
    shell.refuse(shell.take_sub(), "permission_denied")
    shell.accept(shell.take_sub())
    assert (first.got, first.refused_with) == ([], "permission_denied")
    assert second.begun == [fanline.Position(9, "one")]


def test_an_answer_without_history_moves_the_place_to_where_it_says() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9)  # 6 to 9 belong to other channels, or have expired
    shell.message(10, 9)
    assert local.got == [10]
    assert not shell.sent


def test_an_incomplete_history_ends_with_its_gap() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9, count=1, recovered=False)
    shell.message(6, 5)
    shell.gap(7, 9)
    shell.message(10, 9)
    assert local.got == [6, fanline.Gap(CHANNEL, "expired", 7, 9, "one"), 10]


def test_a_resume_that_finds_everything_gone_is_a_gap() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9, recovered=False)
    shell.gap(6, 9)
    shell.message(10, 9)
    assert local.got == [LOST, 10]
    assert not shell.sent


def test_an_ephemeral_channel_has_no_places_and_its_losses_are_counted() -> None:
    shell = RecordingShell()
    local = shell.subscribe()
    shell.accept(shell.take_sub())
    shell.receive(MessageType.PUB, data="hello")
    shell.receive(MessageType.GAP, data={"reason": "slow", "count": 4})
    assert (local.begun, local.got) == ([None], ["hello", fanline.Gap(CHANNEL, "slow", count=4)])
    shell.reconnect()
    command = shell.take_sub()
    assert (command.offset, command.epoch, command.data) == (None, None, None)


def test_a_channel_that_has_become_durable_is_followed_from_where_the_server_says() -> None:
    shell = RecordingShell()
    local = shell.subscribe()
    shell.accept(shell.take_sub())
    shell.reconnect()
    shell.accept(shell.take_sub(), 7)
    shell.message(9, 8)
    assert (local.got, shell.take_sub().offset) == ([], 7)


def test_a_channel_that_is_no_longer_durable_is_followed_without_offsets() -> None:
    shell, first = live_shell(5)
    shell.disconnect()
    shell.unsubscribe(first)
    viewer = shell.subscribe(last(2))
    shell.connect()
    shell.accept(shell.take_sub(), 5, count=2)
    shell.reconnect()
    shell.accept(shell.take_sub())
    shell.receive(MessageType.PUB, data="hello")
    assert (viewer.begun, viewer.got) == ([None, None], ["hello"])


def test_a_message_without_an_offset_reaches_all_that_have_begun() -> None:
    shell, local = live_shell(5)
    entering = shell.subscribe()
    shell.receive(MessageType.PUB, data="to everybody")
    assert (local.got, entering.got) == (["to everybody"], [])


def test_the_answer_for_one_that_has_left_meanwhile_is_no_other_ones() -> None:
    shell, live = live_shell(5)
    left = shell.subscribe(last(3))
    shell.unsubscribe(left)
    shell.accept(shell.take_sub(), 7, count=3)
    for offset in (5, 6, 7):
        shell.message(offset, offset - 1)
    assert (live.got, left.got, left.begun) == ([6, 7], [], [])


def test_what_is_still_on_its_way_when_the_last_one_leaves_concerns_no_newer_one() -> None:
    shell, first = live_shell(5)
    shell.reconnect()
    stale = shell.take_sub()
    shell.unsubscribe(first)
    second = shell.subscribe()
    assert [shell.sent.popleft().type] == ["unsub"]
    answer = Envelope(MessageType.OK, id=stale.id, offset=6, epoch="one", data={"count": 1})
    assert shell.machine.answer(answer, 0) is None
    shell.message(6, 5)
    shell.accept(shell.take_sub(), 8)
    shell.message(9, 8)
    assert second.got == [9]


def test_every_state_has_its_row_and_every_row_leads_to_a_state() -> None:
    assert set(CHANNEL_TRANSITIONS) == set(ChannelState)
    reached = {ChannelState.OFFLINE, *(state for row in CHANNEL_TRANSITIONS.values() for state in row.values())}
    assert reached == set(ChannelState)
