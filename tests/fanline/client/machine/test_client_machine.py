"""What the machine decides about connections, tokens and commands, without a socket and without waiting."""

import logging

import pytest

import fanline
from fanline.client.machine.effects import AskToken, Connect, Disconnect, RenewToken
from fanline.client.machine.requests import STORED_SECONDS
from fanline.client.machine.wire import ServerWire
from fanline.protocol.dialects import JSON
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import ErrorData
from fanline.protocol.messages.commands import Authenticate
from fanline.protocol.messages.control_data import read
from fanline.protocol.messages.notices import ReconnectData
from tests.fanline.client.machine.played import HEARTBEAT, PlayedClient, welcome


def final(code: int) -> fanline.ConnectionLost:
    return fanline.ConnectionLost("refused", code=code, final=True)


# --- coming back ------------------------------------------------------------------------------------------------------


def test_it_comes_back_after_its_back_off_or_when_the_server_has_said() -> None:
    client = PlayedClient().ready()
    client.lose()
    assert client.now <= client.machine.deadline <= client.now + 0.25
    client.come_back()
    assert client.told == ["lost; coming back", "connected again"]
    client.hear(Envelope(MessageType.RECONNECT, data=ReconnectData(delay=7000, reason="restart").fields()))
    client.lose()
    assert client.machine.deadline == client.now + 7
    client.come_back()
    client.lose()
    assert client.machine.deadline < client.now + 7, "the delay counts once"


def test_a_failure_before_the_first_connection_is_ready_ends_the_client() -> None:
    client = PlayedClient()
    client.take(AskToken)
    client.perform(client.machine.authorized(None))
    client.take(Connect)
    client.lose(fanline.ConnectionRefused("nothing listens"))
    assert isinstance(client.machine.error, fanline.ConnectionRefused)
    assert client.machine.error.final


def test_an_attempt_that_fails_is_followed_by_another_and_is_told_once() -> None:
    client = PlayedClient().ready()
    local = client.enter()
    client.accept()
    for _ in range(3):
        client.lose(fanline.ConnectionRefused("nothing listens"))
        client.wait(15)
        client.take(AskToken)
        client.perform(client.machine.authorized(None))
        client.take(Connect)
    assert client.told == ["nothing listens; coming back"]
    client.perform(client.machine.opened(JSON.subprotocol, client.now))
    client.hear(welcome(1))
    client.forget_session()
    client.accept()
    assert (client.machine.ready, local.begun) == (True, True)


def test_a_refusal_that_would_be_repeated_ends_the_client_and_everything_that_waits() -> None:
    client = PlayedClient().ready()
    local = client.enter()
    client.accept()
    request = client.ask(MessageType.HISTORY)
    client.lose(final(4403))
    with pytest.raises(fanline.ConnectionLost, match="refused"):
        local.take()
    assert isinstance(request.error, fanline.ConnectionLost)
    assert isinstance(client.ask(MessageType.HISTORY).error, fanline.ConnectionLost)
    assert [type(effect) for effect in client.effects] == [Disconnect]


def test_the_session_to_resume_is_that_of_the_last_connection_that_had_everything() -> None:
    client = PlayedClient().ready()
    client.enter()
    client.accept()
    for expected in ("session-0", "session-0"):  # the second connection is lost while it is subscribed
        client.lose()
        client.wait(15)
        client.connect()
        assert read(Authenticate, client.sent[1]).session == expected
    client.forget_session()
    client.accept()
    assert client.machine.ready
    client.lose()
    client.wait(15)
    client.connect()
    assert read(Authenticate, client.sent[1]).session == "session-2"


def test_a_silent_server_is_asked_once_and_then_left_unless_the_program_is_what_holds_it_back() -> None:
    client = PlayedClient().ready()
    client.wait(HEARTBEAT)
    assert client.sent.popleft().type == MessageType.PING
    client.hear(Envelope(MessageType.PONG))
    client.wait(HEARTBEAT)
    client.wait(HEARTBEAT)
    assert ([type(effect) for effect in client.effects], len(client.told)) == ([Disconnect], 1)

    client = PlayedClient().ready()
    local = client.enter(buffer=1)
    client.accept()
    client.perform(client.machine.received(b'{"v":1,"t":"pub","c":"news:a","d":1}', client.now))
    assert client.machine.holds_back
    client.wait(10 * HEARTBEAT)
    assert (list(client.sent), client.effects) == ([], [])
    assert local.take() is not None
    assert not client.machine.holds_back


def test_a_server_that_says_no_welcome_in_time_is_left() -> None:
    client = PlayedClient()
    client.take(AskToken)
    client.perform(client.machine.authorized(None))
    client.take(Connect)
    client.perform(client.machine.opened(JSON.subprotocol, client.now))
    client.wait(client.machine.deadline - client.now)
    assert str(client.machine.error) == "the server did not say welcome within 10 seconds"


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [final(4401), fanline.ConnectionRefused("no", status=401, final=True)])
def test_a_token_that_is_not_accepted_is_told_and_another_one_is_asked_for_if_there_may_be_one(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    client = PlayedClient(can_renew=True).ready()
    client.lose(error)
    assert "did not accept the token" in caplog.text
    client.wait(15)
    client.connect("another")
    assert client.machine.ready
    client = PlayedClient(can_renew=False).ready()
    client.lose(error)
    assert client.machine.error is error


def test_a_token_that_cannot_be_made_is_told_and_asked_for_again_once_the_client_was_connected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = PlayedClient(can_renew=True).ready()
    client.lose()
    client.wait(15)
    client.effects.clear()
    client.perform(client.machine.not_authorized(OSError("no network"), client.now))
    assert "OSError('no network')" in caplog.text
    client.come_back()
    assert client.machine.ready

    client = PlayedClient(can_renew=True)
    mine = KeyError("mine")
    client.perform(client.machine.not_authorized(mine, client.now))
    assert client.machine.error is mine


def test_a_token_that_ends_is_replaced_on_the_same_connection_and_a_refusal_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = PlayedClient(can_renew=True).ready()
    client.hear(Envelope(MessageType.AUTH, data={"expires": 1}))
    client.take(RenewToken)
    client.perform(client.machine.renewed("another"))
    auth = client.sent.popleft()
    assert read(Authenticate, auth).token == "another"
    with caplog.at_level(logging.WARNING, "fanline"):
        refusal = ErrorData(code="unauthenticated", message="too old").fields()
        client.hear(Envelope(MessageType.ERR, id=auth.id, data=refusal))
    assert "too old" in caplog.text
    assert client.machine.ready

    client = PlayedClient(can_renew=False).ready()
    client.hear(Envelope(MessageType.AUTH, data={"expires": 1}))
    assert client.effects == []


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MessageType.HISTORY, MessageType.PRESENCE, MessageType.ACK])
def test_what_may_be_done_twice_is_sent_again_in_its_order(kind: MessageType) -> None:
    client = PlayedClient().ready()
    first, second = client.ask(kind, "1"), client.ask(kind, "2")
    client.lose()
    waiting = client.ask(kind, "3")
    client.come_back()
    assert [command.id for command in client.sent] == ["1", "2", "3"]
    for request in (first, second, waiting):
        client.accept()
        assert request.reply is not None


@pytest.mark.parametrize("kind", [MessageType.CALL, MessageType.PUB, MessageType.PING])
def test_what_may_have_been_done_fails_with_the_connection_and_is_not_sent_again(kind: MessageType) -> None:
    client = PlayedClient().ready()
    request = client.ask(kind, channel="news:a")
    client.lose()
    assert "it may have been done" in str(request.error)
    client.come_back()
    assert not client.sent


def test_a_publish_is_not_sent_again_by_another_user_for_whom_the_server_would_store_it_once_more() -> None:
    client = PlayedClient().ready()
    client.ask(MessageType.PUB, "0", channel="task:1")
    client.accept(offset=3, data={"id": "x"})
    sent = client.ask(MessageType.PUB, "1", channel="task:1")
    client.lose()
    waiting = client.ask(MessageType.PUB, "2", channel="task:1")
    client.user = "bob"
    client.come_back()
    assert "it may have been done" in str(sent.error)
    assert [command.id for command in client.sent] == ["2"]
    assert waiting.error is None


def test_a_publish_to_a_durable_channel_is_sent_again_as_long_as_the_server_knows_its_id() -> None:
    client = PlayedClient().ready()
    client.ask(MessageType.PUB, "0", channel="task:1")
    client.accept(offset=3, data={"id": "x"})
    request = client.ask(MessageType.PUB, channel="task:1")
    client.lose()
    client.come_back()
    assert client.sent[0].id == "1"
    client.lose()
    client.now += STORED_SECONDS
    client.wait(1)
    client.connect()
    assert not client.sent
    assert "it may have been done" in str(request.error)


def test_a_command_that_nobody_waits_for_any_more_is_not_sent_later_and_its_answer_is_ignored() -> None:
    client = PlayedClient().ready()
    sent = client.ask(MessageType.HISTORY, "1")
    client.machine.forget(sent)
    client.accept()
    assert not sent.settled
    client.lose()
    client.machine.forget(client.ask(MessageType.HISTORY, "2"))
    client.come_back()
    assert not client.sent


def test_commands_wait_until_everything_is_subscribed_again() -> None:
    client = PlayedClient().ready()
    client.enter()
    client.accept()
    client.lose()
    client.ask(MessageType.CALL)
    client.come_back()
    assert [command.type for command in client.sent] == [MessageType.SUB]
    client.accept()
    assert [command.type for command in client.sent] == [MessageType.CALL]


def test_a_message_that_cannot_be_read_ends_the_client() -> None:
    client = PlayedClient().ready()
    client.perform(client.machine.received(b"nonsense", client.now))
    assert isinstance(client.effects[0], Disconnect)
    assert "cannot be read" in str(client.machine.error)


def test_what_the_server_could_only_refuse_is_not_sent() -> None:
    client = PlayedClient().ready()
    request = client.ask(MessageType.PUB, channel="no channel")
    assert isinstance(request.error, fanline.ServerError)
    assert not client.sent
    assert ServerWire(JSON).limit > 65_536
