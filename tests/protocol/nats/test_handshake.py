"""The beginning of a connection, state by state."""

from collections.abc import Callable

import msgspec
import pytest

from fanline.protocol.nats.commands import PING, Login
from fanline.protocol.nats.handshake import Handshake, HandshakeState
from fanline.protocol.nats.parser import NatsError, NatsMessage

INFO = b'INFO {"version":"2.15.1","max_payload":1000,"nonce":"n1"} \r\n'
INFO_TLS = b'INFO {"version":"2.15.1","tls_required":true} \r\n'
INFO_TLS_OFFERED = b'INFO {"version":"2.15.1","tls_available":true} \r\n'


def in_state(state: HandshakeState, *, tls: bool = False) -> Handshake:
    """A handshake that has come as far as `state`."""
    handshake = Handshake(Login(token="t"), name="n", tls=tls or state is HandshakeState.TLS)
    if state is not HandshakeState.INFO:
        handshake.receive(INFO_TLS if handshake._tls else INFO)
    if handshake._tls and state in (HandshakeState.HELLO, HandshakeState.PONG, HandshakeState.OPEN):
        handshake.secured()
    if state in (HandshakeState.PONG, HandshakeState.OPEN):
        handshake.hello()
    if state is HandshakeState.OPEN:
        handshake.receive(b"PONG\r\n")
    assert handshake.state is state
    return handshake


def test_a_handshake_without_tls_says_hello_to_info_and_is_open_with_the_pong() -> None:
    handshake = Handshake(Login(token="t"), name="n", tls=False)
    states = [handshake.state]
    for data in (INFO[:20], INFO[20:]):
        handshake.receive(data)
        states.append(handshake.state)
    hello = handshake.hello()
    states.append(handshake.state)
    handshake.receive(b"PONG\r\n")
    states.append(handshake.state)
    info, pong = HandshakeState.INFO, HandshakeState.PONG
    assert states == [info, info, HandshakeState.HELLO, pong, HandshakeState.OPEN]
    assert hello.endswith(PING)
    options = msgspec.json.decode(hello.removeprefix(b"CONNECT ").removesuffix(PING))
    assert (options["auth_token"], options["name"], options["tls_required"]) == ("t", "n", False)


@pytest.mark.parametrize(
    ("info", "tls", "state"),
    [
        (INFO, False, HandshakeState.HELLO),
        (INFO_TLS, False, HandshakeState.TLS),
        (INFO_TLS, True, HandshakeState.TLS),
        (INFO_TLS_OFFERED, False, HandshakeState.HELLO),
        (INFO_TLS_OFFERED, True, HandshakeState.TLS),
    ],
)
def test_tls_comes_next_if_either_side_requires_it(info: bytes, tls: bool, state: HandshakeState) -> None:
    handshake = Handshake(Login(), name="n", tls=tls)
    handshake.receive(info)
    assert handshake.state is state


def test_a_server_without_tls_is_refused_where_tls_is_required() -> None:
    handshake = Handshake(Login(token="secret"), name="n", tls=True)
    with pytest.raises(NatsError, match="does not offer it"):
        handshake.receive(INFO)


def test_hello_is_said_only_once_tls_is_established_and_says_so() -> None:
    handshake = in_state(HandshakeState.TLS)
    with pytest.raises(AssertionError):
        handshake.hello()
    handshake.secured()
    assert b'"tls_required":true' in handshake.hello()


STEPS: dict[str, Callable[[Handshake], object]] = {"secured": Handshake.secured, "hello": Handshake.hello}
ALLOWED = {("secured", HandshakeState.TLS), ("hello", HandshakeState.HELLO)}


@pytest.mark.parametrize("state", HandshakeState)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_out_of_turn_is_a_mistake_of_the_shell(step: str, state: HandshakeState) -> None:
    handshake = in_state(state)
    if (step, state) in ALLOWED:
        STEPS[step](handshake)
        assert handshake.state is not state
    else:
        with pytest.raises(AssertionError, match=state.name):
            STEPS[step](handshake)
        assert handshake.state is state


@pytest.mark.parametrize("state", HandshakeState)
def test_an_err_ends_the_handshake_in_every_state_with_the_words_of_the_server(state: HandshakeState) -> None:
    # INFO and this one may come in one read: a server that is full does not wait for our hello.
    with pytest.raises(NatsError, match="maximum connections exceeded"):
        in_state(state).receive(b"-ERR 'maximum connections exceeded'\r\n")


def test_a_refused_login_is_told_as_one() -> None:
    with pytest.raises(NatsError, match="refused the login: Authorization Violation"):
        in_state(HandshakeState.PONG).receive(b"-ERR 'Authorization Violation'\r\n")


@pytest.mark.parametrize("first", [b"PING\r\n", b"+OK\r\n", b"MSG a 1 1\r\nx\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_another_kind_of_server_is_recognised_by_its_first_line(first: bytes) -> None:
    with pytest.raises(NatsError, match="not a NATS server"):
        Handshake(Login(), name="n", tls=False).receive(first)


@pytest.mark.parametrize("early", [b"PONG\r\n", b"INFO {}\r\n", b"MSG a 1 1\r\nx\r\n"])
def test_what_comes_between_info_and_tls_is_not_believed(early: bytes) -> None:
    with pytest.raises(NatsError, match="between its INFO and TLS"):
        Handshake(Login(), name="n", tls=True).receive(INFO_TLS + early)


def test_the_beginning_of_a_line_before_tls_is_not_believed_either() -> None:
    # Whoever is on the way could put words in front of the server's first ones.
    handshake = Handshake(Login(), name="n", tls=True)
    handshake.receive(INFO_TLS + b"-ERR 'no ")
    with pytest.raises(NatsError, match="between its INFO and TLS"):
        handshake.secured()


def test_the_newest_info_counts_even_if_it_comes_in_one_read_with_the_pong() -> None:
    # nats-server answers the first PING with PONG and an INFO that has the limits of the account.
    handshake = in_state(HandshakeState.PONG)
    assert handshake.info.max_payload == 1000
    handshake.receive(b'INFO {"max_payload":900}\r\nPONG\r\nINFO {"max_payload":800,"ldm":true}\r\n')
    assert handshake.state is HandshakeState.OPEN
    assert (handshake.info.max_payload, handshake.info.ldm) == (800, True)


def test_what_has_begun_to_come_goes_on_in_the_open_connection() -> None:
    handshake = in_state(HandshakeState.PONG)
    handshake.receive(b"PONG\r\nMSG a 1 5\r\nhel")
    assert handshake.parser.feed(b"lo\r\n") == [NatsMessage(1, "a", "", b"hello")]


@pytest.mark.parametrize("harmless", [b"+OK\r\n", b"PING\r\n"])
def test_other_lines_before_the_pong_change_nothing(harmless: bytes) -> None:
    handshake = in_state(HandshakeState.PONG)
    handshake.receive(harmless)
    assert handshake.state is HandshakeState.PONG
