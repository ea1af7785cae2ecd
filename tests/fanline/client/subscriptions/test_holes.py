"""What is missing in a channel is asked for, and reported if the server cannot say what became of it."""

import pytest

import fanline
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import MessageType
from tests.fanline.client.subscriptions.recording_shell import (
    CHANNEL,
    last,
    live_shell,
)


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
    assert local.numbers == [9, 13]


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


def test_an_epoch_that_goes_on_without_a_loss_is_no_gap() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 7, count=2, epoch="two")
    shell.message(6, 5)
    shell.message(7, 6)
    assert local.got == [6, 7]
    shell.reconnect()
    command = shell.take_sub()
    assert (command.offset, command.epoch) == (7, "two")


def test_a_message_may_say_that_its_offset_is_of_another_epoch() -> None:
    shell, local = live_shell(5)
    shell.receive(MessageType.PUB, offset=6, previous=5, epoch="two", data=6)
    shell.message(7, 6)
    assert local.got == [6, 7]
    shell.reconnect()
    command = shell.take_sub()
    assert (command.offset, command.epoch) == (7, "two")
