"""All subscriptions of a client: what its connection means to them."""

import fanline
from fanline.client.subscriptions.cursor import CURSOR_TRANSITIONS, CursorEvent, CursorState
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.subscriptions.recording_shell import CHANNEL, RecordingShell, last, live_shell

OTHER = "task:2"


def test_without_a_channel_a_connection_is_ready_at_once() -> None:
    assert RecordingShell().resumed == 1


def test_a_connection_is_ready_once_the_server_has_answered_for_each_channel() -> None:
    shell, _ = live_shell(5)
    shell.subscribe(channel=OTHER)
    shell.accept(shell.take_sub(), 7)
    shell.reconnect()
    one, other = shell.take_sub(), shell.take_sub()
    assert {one.channel, other.channel} == {CHANNEL, OTHER}
    shell.accept(one, 5)
    assert shell.resumed == 1
    shell.refuse(other, "unavailable")  # an answer too: commands are not held up by a bus that is away
    assert shell.resumed == 2


def test_a_connection_is_ready_when_the_last_channel_without_an_answer_is_left() -> None:
    shell, local = live_shell(5)
    shell.reconnect()
    assert shell.resumed == 1
    shell.unsubscribe(local)
    assert shell.resumed == 2


def test_without_a_connection_nothing_is_asked_and_with_the_next_one_everything() -> None:
    shell = RecordingShell()
    shell.disconnect()
    local = shell.subscribe()
    assert not shell.sent
    shell.connect()
    shell.accept(shell.take_sub(), 5)
    assert local.begun == [fanline.Position(5, "one")]


def test_an_answer_of_a_former_connection_is_ignored() -> None:
    shell, _ = live_shell(5)
    shell.reconnect()
    stale = shell.take_sub()
    shell.reconnect()
    assert shell.machine.waiting
    assert shell.machine.answer(Envelope(MessageType.OK, id=stale.id), 0) is None
    shell.disconnect()
    assert not shell.machine.waiting


def test_the_answer_to_a_programs_own_command_is_left_to_it() -> None:
    shell = RecordingShell()
    assert shell.machine.answer(Envelope(MessageType.OK, id="mine"), 0) is None
    assert shell.machine.answer(Envelope(MessageType.PONG), 0) is None


def test_a_message_of_a_channel_that_is_not_subscribed_is_left() -> None:
    shell = RecordingShell()
    assert shell.machine.receive(Envelope(MessageType.PUB, channel=OTHER, data=1)) == []


def test_a_sub_that_cannot_be_sent_is_a_refusal() -> None:
    shell = RecordingShell()
    local = shell.subscribe(last(1))
    error = fanline.ServerError("bad_channel", "no channel name")
    effects = shell.machine.refuse(shell.take_sub(), error, shell.now)
    assert [(effect.cursor, effect.error) for effect in effects] == [(local.cursor, error)]  # type: ignore[union-attr]  # an End


def test_the_end_of_the_client_ends_all_subscriptions_and_later_ones_too() -> None:
    shell, begun = live_shell(5)
    entering = shell.subscribe()
    error = fanline.ConnectionLost("the client is closed", final=True)
    shell.close(error)
    late = shell.subscribe()
    assert [begun.error, entering.error, late.error] == [error, error, error]
    shell.sent.clear()
    for local in (begun, entering, late):
        shell.unsubscribe(local)
    assert not shell.sent


def test_a_namespace_is_durable_once_an_answer_has_had_an_offset() -> None:
    shell = RecordingShell()
    assert not shell.machine.is_durable(CHANNEL)
    shell.machine.learn(CHANNEL, Envelope(MessageType.OK))
    assert not shell.machine.is_durable(CHANNEL)
    shell.subscribe()
    shell.accept(shell.take_sub(), 1)
    assert shell.machine.is_durable(OTHER)
    assert not shell.machine.is_durable("news:all")


def test_every_cursor_state_has_its_row_and_ends_when_it_is_left() -> None:
    assert set(CURSOR_TRANSITIONS) == set(CursorState)
    for state, row in CURSOR_TRANSITIONS.items():
        assert row.get(CursorEvent.ENDED) == (None if state is CursorState.ENDED else CursorState.ENDED)
