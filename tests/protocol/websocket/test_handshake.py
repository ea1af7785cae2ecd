"""The opening handshake, in chunks of any size, and with wrong bytes."""

import base64
import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.dialects import BY_SUBPROTOCOL
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import (
    MAX_HEAD_BYTES,
    SECURITY_HEADERS,
    HeadReader,
    Request,
    accept_value,
    check_upgrade,
    choose_subprotocol,
    http_response,
    upgrade_response,
)
from tests.protocol.strategies import chunked, mutated
from tests.vectors import load

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "Host": "localhost:8080",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head(line: str = "GET /ws?a=1 HTTP/1.1", **changes: str | None) -> bytes:
    """A request head; a header named in `changes` (with `_` for `-`) is replaced, or left out if None."""
    renamed = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = {**HEADERS, **renamed}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def padded(size: int) -> bytes:
    """A valid head of exactly `size` bytes."""
    return head(X_Pad="x" * (size - len(head(X_Pad=""))))


def read(*chunks: bytes) -> Request | None:
    """The request that a reader gets from the chunks; bytes after the head go to `rest`."""
    reader = HeadReader()
    for at, chunk in enumerate(chunks):
        request = reader.feed(chunk)
        if request is not None:
            return request._replace(rest=request.rest + b"".join(chunks[at + 1 :]))
    return None


def read_whole(data: bytes) -> Request:
    request = read(data)
    assert request is not None
    return request


@pytest.mark.parametrize("row", load("handshake.json", "accept"), ids=lambda row: row["key"])
def test_golden_accept_values(row: Any) -> None:
    assert accept_value(row["key"]) == row["accept"]
    assert check_upgrade(read_whole(head(Sec_WebSocket_Key=row["key"]))) == row["accept"]


def test_a_request_is_split_into_its_parts() -> None:
    request = read_whole(head() + b"\x81\x80")
    assert (request.method, request.path, request.query, request.version) == ("GET", "/ws", "a=1", "1.1")
    assert request.headers == {name.lower(): value for name, value in HEADERS.items()}
    assert request.rest == b"\x81\x80"


@given(st.binary(max_size=40), st.data())
def test_any_chunking_gives_the_same_request(frames: bytes, data: st.DataObject) -> None:
    whole = head() + frames
    assert read(*data.draw(chunked(whole))) == read_whole(whole)


def test_one_byte_at_a_time_gives_the_same_request() -> None:
    assert read(*(bytes((byte,)) for byte in head())) == read_whole(head())


def test_no_prefix_of_a_head_is_a_request() -> None:
    for size in range(len(head())):
        assert read(head()[:size]) is None


def test_repeated_list_headers_are_joined_and_others_refused() -> None:
    again = b"Connection: upgrade\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, c\r\n\r\n"
    again = b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.1\r\n" + again  # HAProxy adds a line of its own
    request = read_whole(head()[:-2] + again)
    assert request.headers["x-forwarded-for"] == "203.0.113.9, 10.0.0.1"
    assert request.headers["connection"] == "keep-alive, Upgrade, upgrade"
    assert request.headers["sec-websocket-protocol"] == "a, b, c"
    for name in ("Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Authorization"):
        with pytest.raises(HttpError, match="is repeated") as caught:
            read(head(Authorization="x")[:-2] + f"{name}: y\r\n\r\n".encode())
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ws HTTP/1.1\nHost: x\n\n",
        b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"POST /ws HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /\u00e9 HTTP/1.1\r\n\r\n".encode(),
    ],
)
def test_bytes_that_are_not_http_are_answered_400(sent: bytes) -> None:
    with pytest.raises(HttpError, match=r"this is not an HTTP/1\.1 request") as caught:
        read(sent)
    assert caught.value.status == 400


@pytest.mark.parametrize("chunk", [1, 1000, MAX_HEAD_BYTES, 2 * MAX_HEAD_BYTES])
def test_a_head_of_16_kib_is_read_and_one_byte_more_is_431_however_it_is_cut(chunk: int) -> None:
    def cut(data: bytes) -> list[bytes]:
        return [data[at : at + chunk] for at in range(0, len(data), chunk)]

    assert read(*cut(padded(MAX_HEAD_BYTES) + b"frames")) == read_whole(padded(MAX_HEAD_BYTES))._replace(rest=b"frames")
    with pytest.raises(HttpError) as caught:
        read(*cut(padded(MAX_HEAD_BYTES + 1)))
    assert caught.value.status == 431


def test_a_head_that_does_not_end_is_431_as_soon_as_it_is_over_16_kib() -> None:
    reader = HeadReader()
    assert reader.feed(b"GET /ws HTTP/1.1\r\nX: " + b"x" * 10_000) is None
    with pytest.raises(HttpError) as caught:
        reader.feed(b"x" * 10_000)
    assert caught.value.status == 431


@pytest.mark.parametrize(
    "behind",
    [
        b"GARBAGE\x00\xff",
        b"GET /other HTTP/1.1\r\nHost: y\r\nHost: y\r\n\r\n",
        head("GET /second HTTP/1.1"),
        b"x" * 50_000,
    ],
)
def test_requests_pipelined_behind_the_first_one_are_ignored(behind: bytes) -> None:
    plain = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    assert read_whole(plain + behind)[:5] == read_whole(plain)[:5]


def test_the_body_of_a_request_does_not_count_as_its_head() -> None:
    sent = f"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: {10**6}\r\n\r\n".encode() + b"x" * 50_000
    assert read_whole(sent).method == "POST"


@pytest.mark.parametrize(
    ("status", "header", "sent"),
    [
        (405, "Allow", head("POST /ws HTTP/1.1")),
        (405, "Allow", head("CONNECT example.org:80 HTTP/1.1")),
        (426, "Upgrade", head(Upgrade=None)),
        (426, "Upgrade", head(Upgrade="h2c")),
        (426, "Upgrade", head(Connection=None)),
        (426, "Upgrade", head(Connection="keep-alive")),
        (400, None, head("GET /ws HTTP/1.0")),
        (400, None, head(Host=None)),
        (426, "Sec-WebSocket-Version", head(Sec_WebSocket_Version="8")),
        (426, "Sec-WebSocket-Version", head(Sec_WebSocket_Version=None)),
        (400, None, head(Sec_WebSocket_Key=None)),
        (400, None, head(Sec_WebSocket_Key="short")),
        (400, None, head(Sec_WebSocket_Key=base64.b64encode(bytes(15)).decode())),
        (400, None, head(Sec_WebSocket_Key=KEY[:-1] + "\u00e9")),
    ],
)
def test_a_request_that_cannot_become_a_websocket_is_refused(status: int, header: str | None, sent: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        check_upgrade(read_whole(sent))
    assert caught.value.status == status
    assert [name for name, _ in caught.value.headers] == ([header] if header else [])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("fanline.v1.json", "fanline.v1.json"),
        ("fanline.v9.xml, fanline.v1.cbor,fanline.v1.json", "fanline.v1.cbor"),
    ],
)
def test_the_first_known_subprotocol_wins(offered: str | None, chosen: str | None) -> None:
    assert choose_subprotocol(read_whole(head(Sec_WebSocket_Protocol=offered)), tuple(BY_SUBPROTOCOL)) == chosen


@pytest.mark.parametrize("offered", ["", "soap", "FANLINE.V1.JSON"])
def test_only_unknown_subprotocols_are_refused_with_the_known_ones(offered: str) -> None:
    with pytest.raises(HttpError, match=r"fanline\.v1\.json, fanline\.v1\.cbor") as caught:
        choose_subprotocol(read_whole(head(Sec_WebSocket_Protocol=offered)), tuple(BY_SUBPROTOCOL))
    assert caught.value.status == 400


@given(st.data())
def test_garbage_gives_only_http_errors(data: st.DataObject) -> None:
    sent = data.draw(st.binary(max_size=200) | mutated(st.just(head())))
    refusal = None
    try:
        request = read(*data.draw(chunked(sent)))
        if request is not None:
            check_upgrade(request)
    except HttpError as error:
        refusal = error
    if refusal is not None:
        answer = http_response(refusal.status, b"{}", refusal.headers)
        assert answer.startswith(f"HTTP/1.1 {refusal.status} ".encode())


def test_responses_are_complete_http_messages() -> None:
    assert upgrade_response("x=", "fanline.v1.json") == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x=\r\nSec-WebSocket-Protocol: fanline.v1.json\r\n\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in upgrade_response("x=", None)
    body = json.dumps({"a": 1}).encode()
    response_head, _, response_body = http_response(405, body, (("Allow", "GET"),)).partition(b"\r\n\r\n")
    assert response_head.split(b"\r\n") == [
        b"HTTP/1.1 405 Method Not Allowed",
        b"Allow: GET",
        b"Content-Type: application/json",
        b"Content-Length: 8",
        b"Connection: close",
        *(f"{name}: {value}".encode() for name, value in SECURITY_HEADERS),
    ]
    assert response_body == body
    assert http_response(200, body, is_head=True) == http_response(200, body).removesuffix(body)


@pytest.mark.parametrize(
    "chunks",
    [
        [head()],
        [head() + head()],
        [head()[:20], head()[20:]],
        [head()[:20]],  # and nothing more comes
        [b"\x16\x03\x01 no HTTP\r\n\r\n"],
        [head("GET / HTTP/1.1", Origin="a\r\nHost: b")],  # a header that is repeated
        [bytes(MAX_HEAD_BYTES + 1).replace(b"\0", b"x")],
        [b"GET / HTTP/1.1\r\nX: ", b"x" * MAX_HEAD_BYTES],
    ],
)
def test_a_handshake_leaves_nothing_to_the_garbage_collector(chunks: list[bytes]) -> None:
    def shake() -> None:
        reader = HeadReader()
        try:
            for chunk in chunks:
                reader.feed(chunk)
        except HttpError:
            pass

    shake()  # whatever is made once
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            shake()
        assert gc.collect() == 0
    finally:
        gc.enable()
