"""The publisher's half of the NATS text protocol, compared with the examples in its documentation."""

import msgspec
import pytest

from fanline.protocol.nats.client_protocol import (
    MAX_LINE_BYTES,
    NatsAddress,
    NatsError,
    Reply,
    connect_command,
    parse_info,
    parse_url,
    publish_command,
    read_replies,
    url_of,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://127.0.0.1:4222", NatsAddress("127.0.0.1", 4222, False, "", "", "")),
        ("localhost", NatsAddress("localhost", 4222, False, "", "", "")),
        ("localhost:5222", NatsAddress("localhost", 5222, False, "", "", "")),
        ("tls://user:p%40ss@nats.example:443", NatsAddress("nats.example", 443, True, "user", "p@ss", "")),
        ("nats://s3cret@[::1]:4222", NatsAddress("::1", 4222, False, "", "", "s3cret")),
    ],
)
def test_a_url_has_the_address_and_the_credentials(url: str, expected: NatsAddress) -> None:
    assert parse_url(url) == expected
    assert parse_url(url_of(expected)) == expected


@pytest.mark.parametrize(
    "url", ["http://localhost", "nats://", "nats://localhost:notaport", "nats://localhost:99999", ""]
)
def test_a_wrong_nats_url_is_refused_with_the_url_in_the_sentence(url: str) -> None:
    with pytest.raises(NatsError, match="not a NATS URL"):
        parse_url(url)


def test_publish_is_the_documented_bytes() -> None:
    assert publish_command("FOO", b"Hello NATS!") == b"PUB FOO 11\r\nHello NATS!\r\n"
    assert publish_command("NOTIFY", b"") == b"PUB NOTIFY 0\r\n\r\n"


def test_headers_make_it_an_hpub_with_both_lengths() -> None:
    sent = publish_command("FOO", b"Hello NATS!", {"Bar": "Baz"})
    assert sent == b"HPUB FOO 22 33\r\nNATS/1.0\r\nBar: Baz\r\n\r\nHello NATS!\r\n"


@pytest.mark.parametrize("subject", ["", "a b", "a\tb", "a\r\nPUB x 0", "a\nb"])
def test_a_subject_cannot_break_out_of_its_line(subject: str) -> None:
    with pytest.raises(NatsError):
        publish_command(subject, b"")


@pytest.mark.parametrize(("key", "value"), [("", "x"), ("a:b", "x"), ("a\r\n", "x"), ("a", "x\r\ny"), ("a", "x\ny")])
def test_a_header_cannot_break_out_of_its_line(key: str, value: str) -> None:
    with pytest.raises(NatsError):
        publish_command("a", b"", {key: value})


def test_connect_has_only_the_credentials_that_were_given() -> None:
    assert connect_command().startswith(b"CONNECT {")
    assert connect_command().endswith(b"}\r\n")
    options = msgspec.json.decode(connect_command(token="t", name="n")[8:])
    assert options["auth_token"] == "t"
    assert options["name"] == "n"
    assert options["headers"] is True
    assert not {"user", "pass"} & options.keys()
    options = msgspec.json.decode(connect_command(user="u", password='p"\r\n', tls=True)[8:])
    assert (options["user"], options["pass"], options["tls_required"]) == ("u", 'p"\r\n', True)


def test_replies_are_read_however_the_bytes_are_cut() -> None:
    stream = b'INFO {"version":"2.15.1"} \r\nPING\r\n+OK\r\n-ERR \'Authorization Violation\'\r\nPONG\r\n'
    expected = [
        Reply("INFO", '{"version":"2.15.1"}'),
        Reply("PING", ""),
        Reply("+OK", ""),
        Reply("-ERR", "Authorization Violation"),
        Reply("PONG", ""),
    ]
    for cut in range(len(stream)):
        first, rest = read_replies(stream[:cut])
        second, rest = read_replies(rest + stream[cut:])
        assert first + second == expected
        assert rest == b""


def test_another_kind_of_server_is_recognised_by_its_first_line() -> None:
    with pytest.raises(NatsError, match="not a NATS server"):
        read_replies(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_line_that_does_not_end_is_refused() -> None:
    assert read_replies(b"INFO " + b"x" * 1000)[0] == []
    with pytest.raises(NatsError, match="does not end"):
        read_replies(b"INFO " + b"x" * MAX_LINE_BYTES)


def test_info_is_read_and_unknown_fields_are_ignored() -> None:
    info = parse_info('{"version":"2.15.1","max_payload":8192,"headers":true,"git_commit":"x"}')
    assert (info.version, info.max_payload, info.headers, info.tls_required) == ("2.15.1", 8192, True, False)
    with pytest.raises(NatsError, match="INFO"):
        parse_info("nonsense")
