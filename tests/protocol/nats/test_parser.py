"""The stream of a nats-server as values: the documented bytes, any cut, large messages, header blocks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.nats import parser as parser_module
from fanline.protocol.nats.parser import (
    MAX_LINE_BYTES,
    MAX_MESSAGE_BYTES,
    NatsError,
    NatsMessage,
    Parser,
    Reply,
    header_of,
    status_of,
)

Item = Reply | NatsMessage

HEADERS = b"NATS/1.0\r\nBar: Baz\r\n\r\n"
STREAM: dict[bytes, Item] = {
    b'INFO {"version":"2.15.1"} \r\n': Reply("INFO", '{"version":"2.15.1"}'),
    b"PING\r\n": Reply("PING", ""),
    b"+OK\r\n": Reply("+OK", ""),
    b"-ERR 'Authorization Violation'\r\n": Reply("-ERR", "Authorization Violation"),
    b"PONG\r\n": Reply("PONG", ""),
    b"MSG FOO.BAR 9 11\r\nHello World\r\n": NatsMessage(9, "FOO.BAR", "", b"Hello World"),
    b"MSG FOO.BAR 9 GREETING.34 11\r\nHello World\r\n": NatsMessage(9, "FOO.BAR", "GREETING.34", b"Hello World"),
    b"MSG FOO 1 0\r\n\r\n": NatsMessage(1, "FOO", "", b""),
    b"MSG FOO 1 2\r\n\r\n\r\n": NatsMessage(1, "FOO", "", b"\r\n"),
    b"HMSG FOO 9 22 33\r\n" + HEADERS + b"Hello World\r\n": NatsMessage(9, "FOO", "", b"Hello World", HEADERS),
    b"HMSG FOO 9 BAZ.6 22 22\r\n" + HEADERS + b"\r\n": NatsMessage(9, "FOO", "BAZ.6", b"", HEADERS),
}
"""What a server sends, most of it from docs.nats.io, "NATS Protocol", and what it is."""

GARBAGE = (
    b"HTTP/1.1 400 Bad Request\r\n",
    b"\r\n",
    b"ping\x00\r\n",
    b"MSG\r\n",
    b"MSG FOO 1\r\n",
    b"MSG FOO x 1\r\na\r\n",
    b"MSG FOO 1 -1\r\n\r\n",
    b"MSG FOO 1 reply extra 1\r\na\r\n",
    b"MSG FOO 1 1\r\nab\r\n",
    b"MSG FOO 1 %d\r\n" % (MAX_MESSAGE_BYTES + 1),
    b"MSG FOO 1 %s\r\n" % (b"9" * 5000),  # more digits than int() takes
    b"MSGX FOO 1 1\r\na\r\n",
    b"HMSG FOO 1 1\r\na\r\n",
    b"HMSG FOO 1 2 1\r\na\r\n",
    b"HMSG FOO 1 -1 1\r\na\r\n",
    b"HMSG FOO 1 r s 1 1\r\na\r\n",
    b"HELLO FOO 1 1 1\r\na\r\n",
)


def read_in_pieces(data: bytes, cuts: list[int]) -> list[Item]:
    """What a parser makes of `data` if it comes cut at these places."""
    parser = Parser()
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    return [item for piece in pieces for item in parser.feed(piece)]


tokens = st.text(st.characters(codec="utf-8", exclude_characters=" \t\r\n"), min_size=1, max_size=12)
payloads = st.binary(max_size=40) | st.sampled_from((b"\r\n", b"PING\r\n", b"MSG a 1 5\r\n", b"\r\n\r\n"))


@st.composite
def sent_messages(draw: st.DrawFn) -> tuple[bytes, Item]:
    """A message as a nats-server writes it, and its value."""
    sid, subject, reply = draw(st.integers(1, 10**6)), draw(tokens), draw(st.just("") | tokens)
    payload, headers = draw(payloads), draw(st.just(b"") | st.just(HEADERS))
    sizes = (str(len(headers)),) * bool(headers) + (str(len(headers) + len(payload)),)
    line = " ".join(("HMSG" if headers else "MSG", subject, str(sid), *(reply,) * bool(reply), *sizes))
    return line.encode() + b"\r\n" + headers + payload + b"\r\n", NatsMessage(sid, subject, reply, payload, headers)


@pytest.mark.parametrize("data", STREAM)
def test_the_documented_bytes_have_the_documented_meaning(data: bytes) -> None:
    assert Parser().feed(data) == [STREAM[data]]


def test_a_stream_means_the_same_wherever_it_is_cut_in_two() -> None:
    data = b"".join(STREAM)
    for cut in range(len(data) + 1):
        assert read_in_pieces(data, [cut]) == list(STREAM.values())


def test_a_stream_means_the_same_if_it_comes_byte_by_byte() -> None:
    data = b"".join(STREAM)
    assert read_in_pieces(data, list(range(len(data)))) == list(STREAM.values())


@given(st.lists(sent_messages() | st.sampled_from(list(STREAM.items())), max_size=8), st.lists(st.integers(0, 2000)))
def test_any_stream_means_the_same_however_it_is_cut(sent: list[tuple[bytes, Item]], cuts: list[int]) -> None:
    assert read_in_pieces(b"".join(data for data, _ in sent), cuts) == [item for _, item in sent]


@given(st.lists(sent_messages(), min_size=1, max_size=4), st.integers(0, 2000))
def test_an_item_is_reported_with_its_last_byte_and_not_before(sent: list[tuple[bytes, Item]], cut: int) -> None:
    data = b"".join(data for data, _ in sent)
    cut %= len(data)
    complete = [index for index in range(len(sent)) if len(b"".join(data for data, _ in sent[: index + 1])) <= cut]
    assert len(Parser().feed(data[:cut])) == len(complete)


@pytest.mark.parametrize("odd", [b"a\x0bb", b"a\x0cb", b"a\x1fb", b"a\x00b", b"caf\xc3\xa9", b"a\xffb"])
def test_a_subject_of_odd_bytes_does_not_end_the_connection(odd: bytes) -> None:
    # nats-server forwards every byte of a subject but blank, tab, CR and LF; what one publisher sends concerns all.
    text = odd.decode("utf-8", "replace")
    assert Parser().feed(b"MSG %s 1 1\r\nx\r\n" % odd) == [NatsMessage(1, text, "", b"x")]
    assert Parser().feed(b"MSG a 1 %s 1\r\nx\r\n" % odd) == [NatsMessage(1, "a", text, b"x")]


def test_an_empty_reply_subject_is_none() -> None:
    assert Parser().feed(b"MSG a 1  1\r\nx\r\n") == [NatsMessage(1, "a", "", b"x")]
    assert Parser().feed(b"HMSG a 1  22 23\r\n" + HEADERS + b"x\r\n") == [NatsMessage(1, "a", "", b"x", HEADERS)]


@pytest.mark.parametrize("data", GARBAGE)
def test_what_no_nats_server_sends_is_refused(data: bytes) -> None:
    with pytest.raises(NatsError, match="NATS server"):
        Parser().feed(data)


def test_the_error_quotes_the_beginning_of_what_was_sent() -> None:
    with pytest.raises(NatsError, match="MSG FOO x 1") as caught:
        Parser().feed(b"MSG FOO x 1\r\n" + b"secret" * 1000)
    assert len(str(caught.value)) < 100


def test_a_line_that_does_not_end_is_refused_and_one_just_short_of_it_is_not() -> None:
    parser = Parser()
    assert parser.feed(b"x" * MAX_LINE_BYTES) == []
    with pytest.raises(NatsError, match="does not end"):
        parser.feed(b"x")


class CountedParse:
    """Counts the bytes that the parser looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self._parse = parser_module._parse
        monkeypatch.setattr(parser_module, "_parse", self)

    def __call__(self, data: bytes) -> tuple[list[Item], int, int]:
        self.bytes += len(data)
        return self._parse(data)


def test_the_pieces_of_a_large_message_are_joined_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, parser, payload = CountedParse(monkeypatch), Parser(), bytes(1 << 20)
    data = b"MSG big 1 %d\r\n%s\r\n" % (len(payload), payload)
    pieces = [data[start : start + 1024] for start in range(0, len(data), 1024)]
    found = [item for piece in pieces for item in parser.feed(piece)]
    assert found == [NatsMessage(1, "big", "", payload)]
    assert counted.bytes <= len(data) + 1024


def test_large_messages_that_follow_each_other_in_pieces_are_read_at_most_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted, parser, payload = CountedParse(monkeypatch), Parser(), bytes(1 << 18)
    data = b"MSG big 1 %d\r\n%s\r\n" % (len(payload), payload) * 8
    pieces = [data[start : start + 5000] for start in range(0, len(data), 5000)]
    assert len([item for piece in pieces for item in parser.feed(piece)]) == 8
    assert counted.bytes <= 2 * len(data)


# --- headers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", None),
        (HEADERS, None),
        (b"NATS/1.0 503\r\n\r\n", 503),
        (b"NATS/1.0 503 No Responders\r\n\r\n", 503),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n", 100),
        (b"NATS/1.0 404", 404),
        (b"NATS/1.0 No 503\r\n\r\n", None),
        (b"NATS/1.0\r\n 503\r\n\r\n", None),
        (b"NATS/1.0 " + b"9" * 5000 + b"\r\n\r\n", None),
        ("NATS/1.0 \uff15\uff10\uff13\r\n\r\n".encode(), None),  # digits, but not ASCII
    ],
)
def test_the_status_is_the_number_in_the_first_line(headers: bytes, status: int | None) -> None:
    assert status_of(headers) == status
    assert NatsMessage(1, "a", "", b"", headers).status == status


REPUBLISHED = (
    b"NATS/1.0\r\nNats-Msg-Id: c/1\r\nNats-Stream: FANLINE_task\r\nNats-Subject: fanline.pub.task.42\r\n"
    b"Nats-Sequence: 17\r\nNats-Time-Stamp: 2026-01-02T03:04:05.678901234Z\r\nNats-Last-Sequence: 9\r\n\r\n"
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Nats-Msg-Id", "c/1"),
        ("Nats-Sequence", "17"),
        ("Nats-Last-Sequence", "9"),
        ("Nats-Time-Stamp", "2026-01-02T03:04:05.678901234Z"),
        ("Sequence", None),
        ("Nats", None),
        ("Nats-Subject: fanline.pub.task.42", None),
        ("NATS/1.0", None),
    ],
)
def test_a_header_is_found_by_its_whole_name(name: str, value: str | None) -> None:
    assert header_of(REPUBLISHED, name) == value


def test_a_header_without_blank_with_blanks_or_empty_has_its_bare_value() -> None:
    headers = b"NATS/1.0\r\nA:1\r\nB:   2  \r\nC:\r\nD: caf\xc3\xa9 \xff\r\n\r\n"
    assert [header_of(headers, name) for name in "ABCDE"] == ["1", "2", "", "café �", None]
    assert header_of(b"", "A") is None
    assert header_of(b"NATS/1.0\r\nA: cut", "A") == "cut"


def test_a_header_of_the_server_wins_over_one_that_the_publisher_made_up() -> None:
    made_up = REPUBLISHED.replace(b"Nats-Msg-Id: c/1", b"Nats-Sequence: 99")
    assert header_of(made_up, "Nats-Sequence") == "17"


names = st.text(st.characters(codec="ascii", exclude_characters=" :\t\r\n\x00"), min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), max_size=8)


@given(st.dictionaries(names, values, max_size=6))
def test_every_header_is_found_again(headers: dict[str, str]) -> None:
    block = "".join(("NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n")).encode()
    assert {name: header_of(block, name) for name in headers} == headers


@given(st.binary(max_size=60), names)
def test_no_header_block_breaks_its_reader(headers: bytes, name: str) -> None:
    assert isinstance(header_of(headers, name), str | None)
    assert isinstance(status_of(headers), int | None)
