"""The client's subscriptions at their edges: offset 0, another epoch, the last moment of patience."""

import pytest

import fanline
from fanline.client.subscriptions.client_channel import BEHIND_SECONDS
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import MessageType
from tests.fanline.client.subscriptions.recording_shell import CHANNEL, RecordingShell, last, live_shell


def test_the_last_one_that_leaves_unsubscribes_its_channel() -> None:
    shell, local = live_shell(5)
    shell.unsubscribe(local)
    (command,) = shell.sent
    assert (command.type, command.channel) == (MessageType.UNSUB, CHANNEL)


@pytest.mark.parametrize("complete", [True, False])
def test_a_new_subscription_knows_whether_its_history_is_complete(complete: bool) -> None:
    shell = RecordingShell()
    local = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 7, count=2, recovered=complete)
    assert local.cursor.recovered is complete


@pytest.mark.parametrize("epoch", ["one", None])
def test_a_subscription_that_resumes_is_in_the_epoch_of_the_answer(epoch: str | None) -> None:
    shell = RecordingShell()
    local = shell.subscribe(StartPosition(position=fanline.Position(5, epoch)))
    shell.accept(shell.take_sub(), 5)
    assert (local.begun, local.got) == ([fanline.Position(5, "one")], [])


def test_a_channel_that_was_recreated_while_the_client_was_away_is_a_gap_of_its_new_epoch() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.accept(shell.take_sub(), 2, epoch="two", count=2, recovered=False)
    (gap,) = local.got
    assert (gap.reason, gap.epoch) == ("epoch", "two")
    shell.message(1, 0)
    shell.message(2, 1)
    assert local.got[1:] == [1, 2]


def test_a_second_subscription_to_a_channel_without_any_message_begins_at_0() -> None:
    shell, _ = live_shell(0)
    second = shell.subscribe()
    shell.accept(shell.take_sub())
    assert second.begun == [fanline.Position(0, "one")]


@pytest.mark.parametrize(("seconds", "ends"), [(BEHIND_SECONDS - 0.01, False), (BEHIND_SECONDS, True)])
def test_a_worker_that_does_not_know_our_offset_is_given_exactly_so_long(seconds: float, ends: bool) -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    shell.refuse(shell.take_sub(), "bad_offset")
    shell.wait(seconds)
    shell.refuse(shell.take_sub(), "bad_offset")
    assert (local.refused_with == "bad_offset") is ends


def test_a_subscription_made_before_any_connection_is_asked_for_once_there_is_one() -> None:
    shell = RecordingShell()
    shell.disconnect()
    shell.subscribe()
    assert not shell.sent
    shell.connect()
    assert shell.take_sub().channel == CHANNEL


def test_a_gap_that_was_sent_for_another_subscription_begins_after_what_this_one_has() -> None:
    shell, ahead = live_shell(5)
    behind = shell.subscribe(StartPosition(position=fanline.Position(2, "one")))
    shell.accept(shell.take_sub(), 8, count=1, recovered=False)
    shell.gap(3, 8)
    assert [(gap.first, gap.last) for gap in ahead.got if isinstance(gap, fanline.Gap)] == [(6, 8)]
    assert [(gap.first, gap.last) for gap in behind.got if isinstance(gap, fanline.Gap)] == [(3, 8)]
