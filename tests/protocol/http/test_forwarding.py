"""A request that is passed on is composed again: no client can say where it ends, or for whom it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.errors import HttpError
from fanline.protocol.http.forwarding import AnswerReader, check_forwardable, expects_continue, forwarded_head
from fanline.protocol.websocket.handshake import HeadReader, Request


def request_of(data: bytes) -> tuple[Request, HeadReader]:
    reader = HeadReader()
    request = reader.feed(data)
    assert request is not None
    return request, reader


def head_of(*lines: str, target: str = "/api/x") -> list[str]:
    """The lines of the head under which a GET with these headers is passed on."""
    request, _ = request_of("\r\n".join([f"GET {target} HTTP/1.1", "Host: a.example", *lines, "", ""]).encode())
    check_forwardable(request)
    return forwarded_head(request, 0, "192.0.2.1", "https").decode("latin-1").split("\r\n")


def test_what_a_client_says_of_itself_stays_and_what_is_about_the_connection_goes() -> None:
    lines = head_of(
        "Authorization: Bearer k",
        "Connection: keep-alive, X-Secret",
        "X-Secret: 1",
        "Keep-Alive: 5",
        "TE: trailers",
        "Proxy-Authorization: x",
        "Accept: */*",
    )
    assert lines == [
        "GET /api/x HTTP/1.1",
        "host: a.example",
        "authorization: Bearer k",
        "accept: */*",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: https",
        "content-length: 0",
        "",
        "",
    ]


@pytest.mark.parametrize(
    "said",
    [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: b",
        "Forwarded: for=b",
        "X-Real-IP: b",
    ],
)
def test_nobody_passes_for_a_proxy(said: str) -> None:
    name = said.partition(":")[0].lower()
    about = [line for line in head_of(said) if line.startswith(name)]
    assert about in ([], ["x-forwarded-for: 192.0.2.1"], ["x-forwarded-proto: https"])


def test_a_host_that_is_named_as_a_hop_by_hop_header_stays() -> None:
    assert "host: a.example" in head_of("Connection: Host")


@pytest.mark.parametrize(
    "head",
    [
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Content-Length: 3, 3",
        "Content-Length : 3",
        "Content-Length: 0x3",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "X: a\r\n b",
        "Connection: Upgrade\r\nUpgrade: h2c",
    ],
)
def test_a_request_whose_end_could_be_seen_elsewhere_is_refused(head: str) -> None:
    with pytest.raises(HttpError) as refusal:
        request, _ = request_of(f"POST /api/x HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
        check_forwardable(request)
    assert refusal.value.status == 400


@pytest.mark.parametrize("head", ["POST /api/x HTTP/1.0\r\nHost: a", "POST /api/x HTTP/1.1\r\nA: b"])
def test_a_request_without_a_host_or_of_an_older_version_is_refused(head: str) -> None:
    request, _ = request_of(f"{head}\r\n\r\n".encode())
    with pytest.raises(HttpError):
        check_forwardable(request)


def test_a_method_that_is_for_proxies_is_refused() -> None:
    request, _ = request_of(b"TRACE /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(HttpError) as refusal:
        check_forwardable(request)
    assert (refusal.value.status, refusal.value.headers[0][0]) == (405, "Allow")


@given(st.binary(max_size=20_000), st.lists(st.integers(1, 5000), max_size=8), st.booleans())
def test_a_body_is_read_whole_however_it_comes_and_what_follows_is_not(
    body: bytes, cuts: list[int], is_chunked: bool
) -> None:
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if is_chunked and body else body
    said = b"Transfer-Encoding: chunked" if is_chunked and body else b"Content-Length: %d" % len(body)
    data = b"POST /api/x HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n%sGET /api/evil HTTP/1.1\r\nHost: a\r\n\r\n" % (said, framed)
    reader, request = HeadReader(), None
    for size in [*cuts, len(data)]:
        piece, data = data[:size], data[size:]
        if request is None:
            request = reader.feed(piece)
        elif not reader.whole:
            reader.feed_body(piece)
    assert request is not None
    assert request.path == "/api/x"
    assert (reader.whole, bytes(reader.body)) == (True, body)


def test_a_client_may_wait_for_permission_to_send_its_body() -> None:
    request, _ = request_of(b"POST /api/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert expects_continue(request)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [ANSWER, CHUNKED])
def test_an_answer_is_whole_with_its_last_byte_and_not_before(answer: bytes) -> None:
    for size in range(len(answer)):
        reader = AnswerReader(to_head=False)
        reader.feed(answer[:size])
        before = reader.whole
        reader.feed(answer[size:])
        assert (before, reader.whole, bytes(reader.data)) == (False, True, answer)


def test_an_answer_to_head_is_whole_with_its_head() -> None:
    reader = AnswerReader(to_head=True)
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
    before = reader.whole
    reader.feed(b"\r\n")
    assert (before, reader.whole) == (False, True)


KNOWN = ANSWER.replace(b"\r\n\r\n", b"\r\nfanline-caller: known\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "knows"),
    [
        (KNOWN, True),
        (ANSWER.replace(b"OK\r\n", b"OK\r\nfanline-caller: known\r\n"), True),
        (ANSWER, False),
        (KNOWN.replace(b"known", b"unknown"), False),
        (ANSWER.replace(b": 5\r\n\r\nhello", b": 27\r\n\r\n\r\nfanline-caller: known\r\n.."), False),
    ],
)
def test_an_answer_says_whether_the_caller_is_known_and_the_client_is_not_told(said: bytes, *, knows: bool) -> None:
    for size in (1, len(said)):
        reader = AnswerReader(to_head=False)
        for start in range(0, len(said), size):
            reader.feed(said[start : start + size])
        assert reader.whole
        assert reader.knows_caller is knows
        shown = bytes(reader.for_client())
        assert shown.startswith(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
        assert (b"fanline-caller: known\r\n" in shown.partition(b"\r\n\r\n")[0] + b"\r\n") is False
        assert shown.partition(b"\r\n\r\n")[2] == said.partition(b"\r\n\r\n")[2]


def test_what_is_no_answer_is_not_passed_on() -> None:
    with pytest.raises(HttpError):
        AnswerReader(to_head=False).feed(b"SSH-2.0-OpenSSH\r\n\r\n")
