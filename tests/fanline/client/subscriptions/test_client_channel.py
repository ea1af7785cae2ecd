"""One channel of a client: what the server is asked, when, and which local subscription gets what of the answers."""

import pytest

import fanline
from fanline.client.subscriptions.channel_states import CHANNEL_TRANSITIONS, ChannelState
from fanline.client.subscriptions.client_channel import BEHIND_SECONDS
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.subscriptions.recording_shell import (
    CHANNEL,
    SNAPSHOT,
    Local,
    RecordingShell,
    last,
    live_shell,
)

LOST = fanline.Gap(CHANNEL, "expired", 6, 9, "one")


def numbers(local: Local) -> list[int]:
    return [item for item in local.got if isinstance(item, int)]


# --- history and live messages ----------------------------------------------------------------------------------


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


# --- holes ------------------------------------------------------------------------------------------------------


def test_a_hole_in_a_history_is_asked_for_once_the_history_is_through() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9, count=2)
    shell.message(9, 8)
    assert not shell.sent
    shell.message(9, 8)
    assert shell.take_sub().offset == 5
    shell.message(10, 9)
    assert not shell.sent, "an answer is on the way"
    assert local.got == []


def test_a_gap_with_something_missing_before_it_is_a_hole_itself() -> None:
    shell, local = live_shell(5)
    shell.gap(8, 9)
    assert (shell.take_sub().offset, local.got) == (5, [])


def test_a_hole_that_is_still_there_after_two_answers_is_a_gap() -> None:
    shell, local = live_shell(5)
    shell.message(9, 8)
    for _ in range(2):
        shell.accept(shell.take_sub(), 9, count=1)
        shell.message(9, 8)
    assert local.got == [fanline.Gap(CHANNEL, "unexplained", 6, 8, "one"), 9]
    assert not shell.sent


def test_a_channel_that_is_recreated_is_reported_to_all_and_then_comes_whole() -> None:
    shell, local = live_shell(5)
    tail = shell.subscribe(last(1))
    shell.accept(shell.take_sub(), 5, count=1)
    shell.receive(MessageType.GAP, epoch="two", data={"from": 0, "to": 0, "reason": "epoch"})
    shell.message(1, 0)
    recreated = fanline.Gap(CHANNEL, "epoch", None, 0, "two")
    assert (local.got, tail.got) == ([recreated, 1], [recreated, 1])
    assert not shell.sent


def test_positions_after_a_recreation_are_of_the_new_life() -> None:
    shell, _ = live_shell(5)
    shell.receive(MessageType.GAP, epoch="two", data={"from": 0, "to": 0, "reason": "epoch"})
    shell.message(1, 0)
    shell.reconnect()
    command = shell.take_sub()
    assert (command.offset, command.epoch) == (1, "two")


@pytest.mark.parametrize("offset", [0, 5])
def test_a_channel_that_was_recreated_meanwhile_is_reported_and_asked_for_from_its_beginning(offset: int) -> None:
    shell, local = live_shell(offset)
    shell.reconnect()
    shell.accept(shell.take_sub(), 2, epoch="two", recovered=False)
    shell.receive(MessageType.GAP, epoch="two", data={"from": 0, "to": 0, "reason": "epoch"})
    command = shell.take_sub()
    assert (command.offset, command.epoch) == (0, "two")
    shell.accept(command, 2, count=2, epoch="two")
    shell.message(1, 0)
    shell.message(2, 1)
    assert local.got == [fanline.Gap(CHANNEL, "epoch", None, 0, "two"), 1, 2]


def test_a_gap_that_cannot_be_read_ends_the_connection_for_good() -> None:
    shell, _ = live_shell(5)
    with pytest.raises(fanline.ConnectionLost, match="cannot be read") as caught:
        shell.receive(MessageType.GAP, data={"from": "here"})
    assert caught.value.final


def test_another_hole_is_asked_for_as_often_as_the_first() -> None:
    shell, local = live_shell(5)
    for last_seen in (5, 9):
        shell.message(last_seen + 4, last_seen + 3)
        for _ in range(2):
            assert fanline.Gap(CHANNEL, "unexplained", last_seen + 1, last_seen + 3, "one") not in local.got
            shell.accept(shell.take_sub(), last_seen + 4, count=1)
            shell.message(last_seen + 4, last_seen + 3)
    assert numbers(local) == [9, 13]


def test_a_hole_of_the_past_says_nothing_about_one_that_is_being_asked_for() -> None:
    shell, _ = live_shell(0)
    shell.message(3, 2)
    for _ in range(2):
        shell.accept(shell.take_sub(), 3, count=1)
        shell.message(3, 2)
    former = shell.subscribe(StartPosition(fanline.Position(7, "zero")))
    shell.accept(shell.take_sub(), 3, recovered=False)
    again = shell.take_sub()
    shell.message(5, 4)  # was on its way
    shell.accept(again, 5, count=3)
    for offset, previous in ((3, 0), (4, 3), (5, 4)):
        shell.message(offset, previous)
    assert former.got == [fanline.Gap(CHANNEL, "epoch", None, 0, "one"), 3, 4, 5]


def test_a_new_server_is_asked_for_a_hole_as_often_as_the_one_before() -> None:
    shell, local = live_shell(5)
    shell.message(9, 8)
    shell.accept(shell.take_sub(), 9, count=1)
    shell.message(9, 8)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9, count=1)
    shell.message(9, 8)
    for _ in range(2):
        assert local.got == []
        shell.accept(shell.take_sub(), 9, count=1)
        shell.message(9, 8)
    assert local.got == [fanline.Gap(CHANNEL, "unexplained", 6, 8, "one"), 9]


def test_a_history_that_the_server_has_cut_short_ends_with_the_first_message_after_it() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9, count=3)
    shell.message(9, 5)  # newer than the other two, with the same conflation key
    shell.message(12, 11)
    assert shell.take_sub().offset == 9
    assert local.got == [9]


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_refused_start_position_costs_the_others_nothing() -> None:
    shell, live = live_shell(5)
    refused = shell.subscribe(StartPosition(fanline.Position(99, "one")))
    shell.refuse(shell.take_sub(), "bad_offset")
    assert refused.refused_with is not None
    assert (live.error, list(shell.sent)) == (None, [])
    shell.message(6, 5)
    assert (live.got, refused.got) == ([6], [])


def test_a_refused_request_for_a_hole_leaves_the_channel_live_and_is_repeated() -> None:
    shell, local = live_shell(5)
    shell.message(8, 7)
    shell.refuse(shell.take_sub(), "unavailable")
    shell.message(9, 8)
    assert (local.got, list(shell.sent)) == ([], [])
    shell.wait(shell.due[0].at)
    again = shell.take_sub()
    assert again.offset == 5
    shell.accept(again, 9, count=4)
    for offset in (6, 7, 8, 9):
        shell.message(offset, offset - 1)
    assert (local.got, local.error) == ([6, 7, 8, 9], None)


def test_refusals_of_a_request_for_a_hole_are_no_answers_to_it() -> None:
    shell, local = live_shell(5)
    shell.message(9, 8)
    for _ in range(3):
        shell.refuse(shell.take_sub(), "unavailable")
        shell.wait(10)
    shell.accept(shell.take_sub(), 9, count=1)
    shell.message(9, 8)
    assert local.got == [], "it is to be asked once more"
    assert shell.take_sub().offset == 5


def test_a_channel_with_a_refused_start_position_is_still_unsubscribed_in_the_end() -> None:
    shell = RecordingShell()
    whole = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 5, count=2)
    refused = shell.subscribe(StartPosition(fanline.Position(99, "one")))
    shell.refuse(shell.take_sub(), "bad_offset")
    shell.unsubscribe(refused)
    shell.unsubscribe(whole)
    assert [command.type for command in shell.sent] == ["unsub"]


def test_a_refused_resume_is_repeated_ever_more_slowly_as_a_fresh_subscription() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    delays = []
    for _ in range(8):
        command = shell.take_sub()
        assert (command.offset, command.epoch) == (5, "one")
        shell.refuse(command, "unavailable")
        delays.append(shell.due[0].at - shell.now)
        shell.wait(delays[-1])
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    shell.accept(shell.take_sub(), 6, count=1)
    shell.message(6, 5)
    assert (local.got, local.error) == ([6], None)


def test_a_channel_that_was_refused_for_now_and_left_is_not_asked_for_again() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.refuse(shell.take_sub(), "unavailable")
    shell.unsubscribe(local)
    shell.wait(10)
    assert not shell.sent, "nothing was left behind in the server"


def test_a_worker_that_is_behind_is_given_time_and_then_believed() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.refuse(shell.take_sub(), "bad_offset")
    shell.wait(BEHIND_SECONDS - 1)
    shell.refuse(shell.take_sub(), "bad_offset")
    assert local.refused_with is None
    shell.wait(BEHIND_SECONDS)
    shell.refuse(shell.take_sub(), "bad_offset")
    assert local.refused_with == "bad_offset"


def test_a_worker_is_not_believed_sooner_because_the_bus_was_away_before() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    for code in ("unavailable", "unavailable", "bad_offset"):
        shell.refuse(shell.take_sub(), code)
        shell.wait(BEHIND_SECONDS)
    assert local.error is None


def test_a_final_refusal_ends_those_it_was_sent_for_and_the_next_is_asked_for() -> None:
    shell, live = live_shell(5)
    shell.reconnect()
    entering = shell.subscribe()
    shell.refuse(shell.take_sub(), "permission_denied")
    assert live.refused_with is not None
    shell.accept(shell.take_sub(), 7)
    assert (entering.begun, entering.error) == ([fanline.Position(7, "one")], None)


def test_a_snapshot_that_is_refused_for_good_ends_its_viewer_alone() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.gap(6, 9)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9)
    shell.refuse(shell.take_sub(), "permission_denied")
    assert (plain.refused_with, viewer.refused_with) == (None, "permission_denied")
    shell.message(10, 9)
    assert plain.got == [LOST, 10]


def test_an_answer_resets_patience_and_pace() -> None:
    shell, local = live_shell(5)
    for _ in range(2):
        shell.message(9, 8)
        shell.refuse(shell.take_sub(), "bad_offset")
        assert shell.due[0].at - shell.now == pytest.approx(0.05)
        shell.wait(BEHIND_SECONDS + 1)
        shell.accept(shell.take_sub(), 9, count=1)
    assert local.error is None


def test_another_worker_is_given_its_own_time() -> None:
    shell, local = live_shell(5)
    for _ in range(2):
        shell.reconnect()
        shell.refuse(shell.take_sub(), "bad_offset")
        shell.wait(BEHIND_SECONDS + 1)
    assert local.error is None


# --- answers that come late ---------------------------------------------------------------------------------------


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


# --- viewers of tasks -----------------------------------------------------------------------------------------------


def live_viewer(offset: int) -> tuple[RecordingShell, Local, Local]:
    """A shell with a plain subscription and a viewer, both at `offset`."""
    shell, plain = live_shell(offset)
    viewer = shell.subscribe(SNAPSHOT)
    shell.accept(shell.take_sub(), offset, count=1)
    shell.snapshot(offset)
    return shell, plain, viewer


def test_a_snapshot_places_the_one_that_asked_for_it_and_no_other() -> None:
    shell, plain = live_shell(100)
    history = shell.subscribe(last(2))
    viewer = shell.subscribe(SNAPSHOT)
    command = shell.take_sub()
    assert command.value == {"last": 2}
    shell.accept(command, 120, count=2)
    again = shell.take_sub()
    assert again.offset == 100
    shell.accept(again, 120, count=2)
    start = shell.take_sub()
    for offset, previous in ((110, 100), (120, 110)):
        shell.message(offset, previous)
    assert start.value == {"snapshot": True, "lines": 5}
    shell.accept(start, 130, count=1)
    shell.snapshot(130)
    assert (plain.got, history.got, viewer.got) == ([110, 120], [110, 120], [130])
    rest = shell.take_sub()
    assert rest.offset == 120, "the others have not got what the snapshot says"
    shell.accept(rest, 130, count=1)
    shell.message(130, 120)
    assert (plain.got[-1], history.got[-1], viewer.got) == (130, 130, [130])


def test_a_snapshot_does_not_place_one_whose_history_has_not_begun() -> None:
    shell = RecordingShell()
    history = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 120, count=2)
    shell.snapshot(120)
    shell.message(110, 100)
    shell.message(120, 110)
    assert history.got == [110, 120]


def test_a_message_that_a_producer_published_as_a_snapshot_is_a_message() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.receive(MessageType.PUB, offset=6, previous=5, event="task_snapshot", data={})
    shell.message(7, 6)
    assert (plain.got, viewer.got) == ([6, 7], [5, 6, 7])
    assert not shell.sent


def test_another_snapshot_is_taken_after_a_gap_only() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.message(6, 5)
    shell.snapshot(6)  # for another viewer that joined later
    assert viewer.got == [5, 6]
    shell.gap(7, 9)
    shell.message(10, 9)
    shell.snapshot(10)
    shell.message(11, 10)
    assert numbers(viewer) == [5, 6, 10, 10, 11]
    assert numbers(plain) == [6, 10, 11]


def test_a_viewer_that_lost_the_connection_between_a_gap_and_its_snapshot_asks_for_one() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.gap(6, 9)
    shell.reconnect()
    shell.accept(shell.take_sub(), 10, count=1)
    shell.message(10, 9)
    start = shell.take_sub()
    assert start.value == {"snapshot": True, "lines": 5}
    shell.accept(start, 10, count=1)
    shell.snapshot(10)
    assert (plain.got[-1], viewer.got) == (10, [5, LOST, 10])


def test_a_snapshot_that_is_refused_for_now_is_asked_for_again_and_nothing_else_is() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.gap(6, 9)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9)
    shell.refuse(shell.take_sub(), "unavailable")
    shell.message(10, 9)
    shell.wait(10)
    start = shell.take_sub()
    assert start.value == {"snapshot": True, "lines": 5}
    shell.accept(start, 10, count=1)
    shell.snapshot(10)
    assert (plain.got, viewer.got, viewer.error) == ([LOST, 10], [5, LOST, 10], None)
    assert not shell.sent


def test_a_viewer_whose_hole_the_server_cannot_explain_begins_again_with_a_snapshot() -> None:
    shell = RecordingShell()
    viewer = shell.subscribe(SNAPSHOT)
    shell.accept(shell.take_sub(), 5, count=1)
    shell.snapshot(5)
    shell.message(9, 8)
    for _ in range(2):
        shell.accept(shell.take_sub(), 9, count=1)
        shell.message(9, 8)
    start = shell.take_sub()
    assert start.value == {"snapshot": True, "lines": 5}
    shell.message(10, 9)  # was on its way
    shell.accept(start, 10, count=1)
    shell.snapshot(10)
    shell.message(11, 10)
    assert viewer.got == [5, fanline.Gap(CHANNEL, "unexplained", 6, 8, "one"), 10, 11]
    assert not shell.sent


def test_a_snapshot_that_did_not_come_before_the_connection_was_lost_is_asked_for_again() -> None:
    shell = RecordingShell()
    shell.subscribe(SNAPSHOT)
    shell.accept(shell.take_sub(), 10, count=1)
    shell.reconnect()
    assert shell.take_sub().value == {"snapshot": True, "lines": 5}


# --- the table --------------------------------------------------------------------------------------------------


def test_every_state_has_its_row_and_every_row_leads_to_a_state() -> None:
    assert set(CHANNEL_TRANSITIONS) == set(ChannelState)
    reached = {ChannelState.OFFLINE, *(state for row in CHANNEL_TRANSITIONS.values() for state in row.values())}
    assert reached == set(ChannelState)
