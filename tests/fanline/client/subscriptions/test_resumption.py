"""A session is resumed: one command in place of a `sub` for each channel, and a `sub` for what it does not hold."""

import pytest

from fanline.client.subscriptions.resumption import Resumption
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import ErrorData
from tests.fanline.client.subscriptions.recording_shell import CHANNEL, RecordingShell, last, live_shell


def test_one_command_names_the_place_of_each_durable_channel_and_nothing_is_subscribed_by_itself() -> None:
    shell, local = live_shell(5)
    news = shell.subscribe(channel="news:a")
    shell.accept(shell.take_sub())
    shell.reconnect("old")
    auth = shell.take_auth()
    assert (auth.session, auth.positions) == ("old", {CHANNEL: (5, "one")})
    shell.resume((CHANNEL, 6, 1), ("news:a", None, 0))
    shell.message(6, 5)
    assert shell.resumed == 1  # that of the first connection
    shell.end_resumption()
    shell.message(7, 6)
    shell.hear(Envelope(MessageType.PUB, channel="news:a", data="live"))
    assert (local.got, news.got, list(shell.sent), shell.resumed) == ([6, 7], ["live"], [], 2)


def test_without_a_session_in_the_server_everything_is_subscribed_by_itself() -> None:
    shell, local = live_shell(5)
    shell.reconnect("gone")
    shell.take_auth()
    shell.end_resumption(resumed=False)
    command = shell.take_sub()
    assert (command.offset, command.epoch, shell.resumed) == (5, "one", 1)
    shell.accept(command, 6, 1)
    shell.message(6, 5)
    assert (local.got, shell.resumed) == ([6], 2)


@pytest.mark.parametrize("code", ["unavailable", "unauthenticated"])
def test_a_resumption_that_is_refused_is_as_good_as_an_unknown_session(code: str) -> None:
    shell, _ = live_shell(5)
    shell.reconnect("old")
    shell.sent.popleft()
    shell.refuse(shell.sent.popleft(), code)
    assert shell.take_sub().offset == 5


def test_a_resumption_that_is_too_large_to_be_sent_is_as_good_as_an_unknown_session() -> None:
    shell, _ = live_shell(5)
    shell.reconnect("old")
    shell.sent.popleft()
    shell.refuse_to_send(shell.sent.popleft())
    assert shell.take_sub().offset == 5


def test_a_channel_that_the_session_does_not_hold_is_subscribed_by_itself_after_the_others() -> None:
    shell, local = live_shell(5)
    shell.subscribe(channel="news:a")
    shell.accept(shell.take_sub())
    shell.reconnect("old")
    shell.take_auth()
    shell.resume(("news:a", None, 0))
    shell.end_resumption()
    command = shell.take_sub()
    assert (command.channel, command.offset, shell.resumed) == (CHANNEL, 5, 1)
    shell.accept(command, 5)
    assert (local.error, shell.resumed) == (None, 2)


def test_a_channel_that_was_left_is_left_in_the_resumed_session_as_well() -> None:
    shell, _ = live_shell(5)
    shell.subscribe(channel="news:a")
    shell.reconnect("old")
    shell.take_auth()
    shell.resume(("news:left", None, 0))
    assert (shell.sent[0].type, shell.sent.popleft().channel) == (MessageType.UNSUB, "news:left")


def test_what_a_route_has_joined_is_no_channel_of_the_session() -> None:
    shell, local = live_shell(5)
    shell.reconnect("old")
    for channel in (CHANNEL, "user:ann"):  # before the `ping` is answered
        shell.hear(Envelope(MessageType.OK, channel=channel, offset=9, epoch="one"))
    shell.take_auth()
    shell.resume((CHANNEL, 7, 2), ("user:ann", 3, 0))
    shell.message(6, 5)
    shell.message(7, 6)
    shell.end_resumption()
    assert (local.got, list(shell.sent)) == ([6, 7], [])


def test_what_comes_because_the_route_joins_the_whole_namespace_has_no_place_in_a_channel() -> None:
    shell, local = live_shell(5)
    shell.reconnect("old")
    shell.hear(Envelope(MessageType.OK, channel="task:*"))
    shell.receive(MessageType.PUB, offset=9, data=9)  # without what it follows on
    shell.take_auth()
    shell.resume((CHANNEL, 9, 4))
    for offset in (6, 7, 8, 9):
        shell.message(offset, offset - 1)
    assert local.got == [6, 7, 8, 9]


def test_a_subscription_that_is_entered_meanwhile_begins_as_on_any_connection() -> None:
    shell, local = live_shell(5)
    shell.reconnect("old")
    shell.take_auth()
    newest, other = shell.subscribe(last(1)), shell.subscribe(last(1), channel="task:2")
    assert not shell.sent
    shell.resume((CHANNEL, 5, 0))
    assert shell.take_sub().value == {"last": 1}
    shell.resume(("task:2", 8, 0))  # which it held without our knowing
    assert shell.sent.popleft().type == MessageType.UNSUB
    assert (shell.take_sub().channel, newest.begun, other.begun) == ("task:2", [], [])
    assert local.error is None


@pytest.mark.parametrize(("code", "ends"), [("permission_denied", True), ("unavailable", False), ("bad_offset", False)])
def test_a_channel_that_is_refused_is_treated_as_after_a_sub(code: str, ends: bool) -> None:
    shell, local = live_shell(5)
    shell.reconnect("old")
    shell.take_auth()
    shell.reply(Envelope(MessageType.ERR, channel=CHANNEL, data=ErrorData(code=code, message="no").fields()))
    shell.end_resumption()
    assert (local.refused_with, shell.resumed) == (code if ends else None, 2)
    shell.wait(9)
    assert len(shell.sent) == (not ends)


def test_a_connection_that_is_lost_meanwhile_leaves_nothing_behind() -> None:
    shell, local = live_shell(5)
    shell.reconnect("old")
    shell.take_auth()
    shell.reconnect("old")
    assert shell.take_auth().positions == {CHANNEL: (5, "one")}
    shell.resume((CHANNEL, 6, 1))
    shell.message(6, 5)
    assert local.got == [6]


def test_without_a_local_subscription_there_is_nothing_to_resume() -> None:
    shell = RecordingShell()
    shell.reconnect("old")
    assert (list(shell.sent), shell.resumed) == ([], 2)


def test_a_late_answer_to_the_ping_is_none() -> None:
    resumption = Resumption()
    resumption.begin("old", {})
    resumption.disconnected()
    assert resumption.take(Envelope(MessageType.PONG, id="~mark")) is None


def test_what_comes_because_the_route_joins_a_channel_is_left_out_until_the_server_has_answered_for_it() -> None:
    """Two things met: a `sub` that was refused for now, and a new epoch whose offsets seem to follow."""
    shell, local = live_shell(5)
    shell.reconnect()
    shell.hear(Envelope(MessageType.OK, channel=CHANNEL, offset=5, epoch="two"))
    shell.refuse(shell.take_sub(), "unavailable")
    shell.message(6, 5)
    assert local.got == []
    shell.wait(9)
    shell.accept(shell.take_sub(), 6, 2, epoch="two", recovered=False)
    shell.message(5, 0)
    shell.message(6, 5)
    gap, *messages = local.got
    assert (gap.reason, messages) == ("epoch", [5, 6])


@pytest.mark.parametrize("kind", [MessageType.PUB, MessageType.GAP])
def test_a_pattern_gets_what_comes_of_a_channel_that_the_server_has_not_answered_for(kind: MessageType) -> None:
    shell, local = live_shell(5)
    whole = shell.subscribe(channel="task:*")
    shell.accept(shell.take_sub())
    shell.reconnect()
    for _ in range(2):
        command = shell.take_sub()
        if command.channel == "task:*":
            shell.accept(command)
    if kind == MessageType.GAP:
        shell.gap(3, 4)
    else:
        shell.message(4, 3)
    assert (len(whole.got), local.got) == (1, [])
