"""What we send: the documented bytes, and no text that could break out of its line."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.nats.commands import Login, header_bytes, hello, publish, subscribe, unsubscribe
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import ServerInfo

any_text = st.text(st.characters(), max_size=20) | st.text(" \t\r\n:aé\ud800", max_size=6)
payloads = st.binary(max_size=40) | st.just(b"\r\nPUB x 0\r\n")


def read_as_a_server(data: bytes) -> tuple[str, list[bytes], bytes, bytes]:
    """Verb, arguments, headers and payload, in the way of a nats-server: one command, and nothing left over."""
    line, _, rest = data.partition(b"\r\n")
    verb, *args = line.replace(b"\t", b" ").split(b" ")
    assert all(args), "an empty argument"
    if verb == b"PUB":
        size, headers = int(args[-1]), 0
    elif verb == b"HPUB":
        size, headers = int(args[-1]), int(args[-2])
    else:
        assert rest == b""
        return verb.decode(), args, b"", b""
    assert rest[size:] == b"\r\n"
    return verb.decode(), args, rest[:headers], rest[headers:size]


@given(headers=st.dictionaries(st.text("aé-", min_size=1, max_size=9), st.text("aé 😀", max_size=9), max_size=3))
def test_the_bytes_of_headers_are_those_that_a_server_counts(headers: dict[str, str]) -> None:
    *_, block, payload = read_as_a_server(publish("x", b"1234", headers))
    assert header_bytes(headers) == len(block)
    assert payload == b"1234"


def test_publish_is_the_documented_bytes() -> None:
    assert publish("FOO", b"Hello NATS!") == b"PUB FOO 11\r\nHello NATS!\r\n"
    assert publish("NOTIFY", b"") == b"PUB NOTIFY 0\r\n\r\n"
    assert publish("FOO", b"?", reply="JOKE.22") == b"PUB FOO JOKE.22 1\r\n?\r\n"
    assert publish("FOO", b"", {}) == b"PUB FOO 0\r\n\r\n"


def test_headers_make_it_an_hpub_with_both_lengths() -> None:
    sent = publish("FOO", b"Hello NATS!", {"Bar": "Baz"})
    assert sent == b"HPUB FOO 22 33\r\nNATS/1.0\r\nBar: Baz\r\n\r\nHello NATS!\r\n"
    assert publish("FOO", b"", {"B": ""}, reply="R") == b"HPUB FOO R 17 17\r\nNATS/1.0\r\nB: \r\n\r\n\r\n"


def test_lengths_count_bytes_and_not_characters() -> None:
    assert publish("FOO", b"", {"B": "é"}).startswith(b"HPUB FOO 19 19\r\n")


def test_subscribe_and_unsubscribe_are_the_documented_bytes() -> None:
    assert subscribe("FOO.*", 44) == b"SUB FOO.* 44\r\n"
    assert unsubscribe(44) == b"UNSUB 44\r\n"
    assert unsubscribe(44, 5) == b"UNSUB 44 5\r\n"


@given(any_text, payloads, any_text, st.none() | st.dictionaries(any_text, any_text, max_size=3))
def test_no_text_makes_a_publish_anything_but_that_one_publish(
    subject: str, payload: bytes, reply: str, headers: dict[str, str] | None
) -> None:
    try:
        sent = publish(subject, payload, headers, reply=reply)
    except NatsError:
        return
    verb, args, block, body = read_as_a_server(sent)
    assert verb == ("HPUB" if headers else "PUB")
    assert args[: 1 + bool(reply)] == [subject.encode(), *[reply.encode()] * bool(reply)]
    assert body == payload
    if headers:
        assert block == b"NATS/1.0\r\n%s\r\n" % b"".join(
            b"%s: %s\r\n" % (k.encode(), v.encode()) for k, v in headers.items()
        )
        assert block.count(b"\r\n") == len(headers) + 2


@given(any_text, st.integers(1, 10**9))
def test_no_text_makes_a_subscribe_anything_but_that_one_subscribe(subject: str, sid: int) -> None:
    try:
        sent = subscribe(subject, sid)
    except NatsError:
        return
    assert read_as_a_server(sent) == ("SUB", [subject.encode(), b"%d" % sid], b"", b"")


@pytest.mark.parametrize("subject", ["", "a b", "a\tb", "a\r\nPUB x 0", "a\nb", "a\rb", "\ud800"])
def test_a_subject_that_would_break_its_line_is_refused(subject: str) -> None:
    with pytest.raises(NatsError, match="NATS"):
        publish(subject, b"")
    with pytest.raises(NatsError, match="NATS"):
        subscribe(subject, 1)
    if subject:
        with pytest.raises(NatsError, match="NATS"):
            publish("a", b"", reply=subject)


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "x"), ("a:b", "x"), ("a\r\n", "x"), ("a", "x\r\ny"), ("a", "x\ny"), ("a", "\r"), ("a", "\udc80")],
)
def test_a_header_that_would_break_its_line_is_refused(name: str, value: str) -> None:
    with pytest.raises(NatsError, match="NATS"):
        publish("a", b"", {name: value})


# --- CONNECT ------------------------------------------------------------------------------------------------------


def connect_options(login: Login, info: ServerInfo | None = None, *, tls: bool = False) -> dict[str, object]:
    sent = hello(info or ServerInfo(), login, name="n", tls=tls)
    line, _, rest = sent.partition(b"\r\n")
    assert line.startswith(b"CONNECT {")
    assert rest == b"PING\r\n"
    options: dict[str, object] = msgspec.json.decode(line.removeprefix(b"CONNECT "))
    return options


def test_connect_asks_for_headers_and_for_errors_alone() -> None:
    options = connect_options(Login())
    assert options.pop("version")
    assert options == {
        "verbose": False,
        "pedantic": False,
        "tls_required": False,
        "lang": "python",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "name": "n",
    }
    assert connect_options(Login(), tls=True)["tls_required"] is True


LOGIN_KEYS = {"user", "pass", "auth_token", "jwt", "nkey", "sig"}


@pytest.mark.parametrize(
    ("login", "nonce", "sent"),
    [
        (Login(), "", {}),
        (Login(token="t"), "", {"auth_token": "t"}),
        (Login(user="u", password='p"\r\n'), "", {"user": "u", "pass": 'p"\r\n'}),
        (Login(nkey="U1", sign=lambda nonce: f"signed {nonce!r}"), "n1", {"nkey": "U1", "sig": "signed b'n1'"}),
        (Login(nkey="U1", jwt="j", sign=lambda nonce: nonce.decode()), "n1", {"jwt": "j", "sig": "n1"}),
        (Login(nkey="U1", sign=lambda nonce: "signed"), "", {"nkey": "U1"}),
        (Login(token="t"), "n1", {"auth_token": "t"}),
    ],
    ids=["nobody", "token", "user", "nkey", "creds", "no nonce", "nonce unused"],
)
def test_connect_has_only_the_credentials_of_the_login(login: Login, nonce: str, sent: dict[str, str]) -> None:
    options = connect_options(login, ServerInfo(nonce=nonce))
    assert {key: value for key, value in options.items() if key in LOGIN_KEYS} == sent
