"""A refused `sub` has done nothing: who ends with it, who waits, and what is asked again."""

import pytest

import fanline
from fanline.client.subscriptions.client_channel import BEHIND_SECONDS
from fanline.client.subscriptions.start import StartPosition
from tests.fanline.client.subscriptions.recording_shell import (
    RecordingShell,
    last,
    live_shell,
)


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
