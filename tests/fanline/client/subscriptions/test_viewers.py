"""Viewers of a task: each takes the snapshots that are due to it, and no others."""

import fanline
from fanline.protocol.envelope import MessageType
from tests.fanline.client.subscriptions.recording_shell import (
    CHANNEL,
    LOST,
    SNAPSHOT,
    Local,
    RecordingShell,
    last,
    live_shell,
)


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
    assert viewer.numbers == [5, 6, 10, 10, 11]
    assert plain.numbers == [6, 10, 11]


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


def test_a_snapshot_that_is_refused_for_good_ends_its_viewer_alone() -> None:
    shell, plain, viewer = live_viewer(5)
    shell.gap(6, 9)
    shell.reconnect()
    shell.accept(shell.take_sub(), 9)
    shell.refuse(shell.take_sub(), "permission_denied")
    assert (plain.refused_with, viewer.refused_with) == (None, "permission_denied")
    shell.message(10, 9)
    assert plain.got == [LOST, 10]
