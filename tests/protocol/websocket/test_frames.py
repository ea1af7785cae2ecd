"""WebSocket frames: golden bytes, limits and what is refused."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket.frames import (
    FrameReader,
    Opcode,
    WebSocketMessage,
    apply_mask,
    decode_close,
    encode_close,
    encode_frame,
    encode_masked_frame,
)
from tests.vectors import load, names

SERVER = load("frames.json", "server")
CLIENT = load("frames.json", "client")
CLOSE = load("frames.json", "close")
REFUSED_CLOSE = load("frames.json", "refused_close")
REFUSED = load("frames.json", "refused")
MASK = b"\x01\x02\x03\x04"


def masked(opcode: Opcode, payload: bytes = b"", *, final: bool = True) -> bytes:
    return encode_masked_frame(opcode, payload, MASK, final=final)


def read(reader: FrameReader, chunks: list[bytes]) -> list[WebSocketMessage]:
    """All messages that the chunks complete."""
    return [message for chunk in chunks for message in reader.feed(chunk)]


@pytest.mark.parametrize("row", SERVER, ids=names(SERVER))
def test_golden_server_frames(row: Any) -> None:
    opcode, payload = Opcode[row["opcode"]], bytes.fromhex(row["byte"]) * row["count"]
    frame = bytes.fromhex(row["head"]) + payload
    assert encode_frame(opcode, payload) == frame
    assert list(FrameReader(65536, from_client=False).feed(frame)) == [WebSocketMessage(opcode, payload)]


@pytest.mark.parametrize("row", CLIENT, ids=names(CLIENT))
def test_golden_client_frames(row: Any) -> None:
    opcode, payload, frame = Opcode[row["opcode"]], bytes.fromhex(row["payload"]), bytes.fromhex(row["frame"])
    assert encode_masked_frame(opcode, payload, bytes.fromhex(row["mask"]), final=row["final"]) == frame
    reader = FrameReader(1000)
    assert list(reader.feed(frame)) == ([WebSocketMessage(opcode, payload)] if row["final"] else [])
    assert reader.idle == row["final"]


@pytest.mark.parametrize("row", CLOSE, ids=lambda row: row["reason"])
def test_golden_close_frames_are_those_of_the_close_reasons(row: Any) -> None:
    reason = CloseReason[row["reason"]]
    assert (reason.code, reason.text, reason.reconnect) == (row["code"], row["text"], row["reconnect"])
    assert encode_close(reason) == bytes.fromhex(row["frame"])
    (message,) = FrameReader(0, from_client=False).feed(bytes.fromhex(row["frame"]))
    assert decode_close(message.payload) == (row["code"], row["text"])


def test_the_vectors_cover_every_close_reason_that_is_sent() -> None:
    assert {CloseReason[row["reason"]] for row in CLOSE} == set(CloseReason) - {CloseReason.ABNORMAL}


@pytest.mark.parametrize("row", REFUSED_CLOSE, ids=names(REFUSED_CLOSE))
def test_a_refused_close_payload_is_refused_with_its_code(row: Any) -> None:
    with pytest.raises(FrameError) as caught:
        decode_close(bytes.fromhex(row["payload"]))
    assert caught.value.reason.code == row["closes_with"]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("row", REFUSED, ids=names(REFUSED))
def test_refused_client_bytes_are_refused_with_their_close_code(row: Any, one_by_one: bool) -> None:
    sent = bytes.fromhex(row["bytes"])
    chunks = [sent[at : at + 1] for at in range(len(sent))] if one_by_one else [sent]
    with pytest.raises(FrameError) as caught:
        read(FrameReader(1000), chunks)
    assert caught.value.reason.code == row["closes_with"]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 3999, 4000, 4999])
def test_codes_that_may_be_sent_are_accepted(code: int) -> None:
    assert decode_close(code.to_bytes(2, "big") + "grüß".encode()) == (code, "grüß")


def test_a_close_without_a_code_is_1005() -> None:
    assert decode_close(b"") == (1005, "")


@given(st.text())
def test_a_close_text_is_cut_on_a_character_boundary(text: str) -> None:
    (message,) = FrameReader(0, from_client=False).feed(encode_close(CloseReason.POLICY, text))
    code, shown = decode_close(message.payload)
    assert code == 1008
    assert text.startswith(shown)
    assert shown == text or len(shown.encode()) > 123 - 4


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
def test_a_mask_is_its_own_inverse_and_is_applied_byte_by_byte(payload: bytes, mask: bytes) -> None:
    hidden = apply_mask(payload, mask)
    assert hidden == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(hidden, mask) == payload


def test_a_message_of_exactly_the_limit_is_accepted_and_one_byte_more_refused() -> None:
    for cut in (1, 500, 999):
        whole = masked(Opcode.BINARY, bytes(cut), final=False) + masked(Opcode.CONTINUATION, bytes(1000 - cut))
        assert list(FrameReader(1000).feed(whole)) == [WebSocketMessage(Opcode.BINARY, bytes(1000))]
        over = masked(Opcode.BINARY, bytes(cut), final=False) + masked(Opcode.CONTINUATION, bytes(1001 - cut))
        with pytest.raises(FrameError, match="over 1000 bytes"):
            list(FrameReader(1000).feed(over))


def test_the_limit_applies_to_each_message_separately() -> None:
    frames = masked(Opcode.TEXT, b"a" * 400, final=False) + masked(Opcode.CONTINUATION, b"b" * 400)
    assert len(list(FrameReader(1000).feed(frames * 5))) == 5


@pytest.mark.parametrize("size", [0, 1])
def test_endless_fragments_are_refused_even_if_they_are_empty(size: int) -> None:
    reader = FrameReader(100)
    assert read(reader, [masked(Opcode.TEXT, b"a" * size, final=False)]) == []
    with pytest.raises(FrameError) as caught:
        read(reader, [masked(Opcode.CONTINUATION, b"a" * size, final=False)] * 200)
    assert caught.value.reason is CloseReason.TOO_BIG


def test_a_huge_declared_length_is_refused_before_its_bytes_come() -> None:
    for head in (b"\x82\xff" + (2**62).to_bytes(8, "big"), b"\x82\xfe\x03\xe9"):
        with pytest.raises(FrameError) as caught:
            list(FrameReader(1000).feed(head))
        assert caught.value.reason is CloseReason.TOO_BIG


def test_control_frames_do_not_count_against_the_limit_and_keep_their_place() -> None:
    sent = masked(Opcode.TEXT, b"ab", final=False) + masked(Opcode.PING, b"x" * 125) + masked(Opcode.CONTINUATION, b"c")
    assert list(FrameReader(3).feed(sent)) == [
        WebSocketMessage(Opcode.PING, b"x" * 125),
        WebSocketMessage(Opcode.TEXT, b"abc"),
    ]


def test_a_character_may_be_cut_by_fragments_and_by_reads() -> None:
    text = "日本".encode()
    sent = masked(Opcode.TEXT, text[:1], final=False) + masked(Opcode.CONTINUATION, text[1:])
    reader = FrameReader(100)
    assert [message for byte in sent for message in reader.feed(bytes((byte,)))] == [
        WebSocketMessage(Opcode.TEXT, text)
    ]


def test_the_reader_is_idle_exactly_when_no_message_is_incomplete() -> None:
    frame = masked(Opcode.TEXT, b"abc")
    steps = [(frame[at : at + 1], at == len(frame) - 1) for at in range(len(frame))]
    steps += [
        (masked(Opcode.TEXT, b"", final=False), False),
        (masked(Opcode.PONG), False),
        (masked(Opcode.CONTINUATION), True),
        (masked(Opcode.PING), True),
    ]
    reader = FrameReader(100)
    assert reader.idle
    assert [(list(reader.feed(sent)), reader.idle)[1] for sent, _ in steps] == [idle for _, idle in steps]


def test_messages_before_a_bad_byte_are_still_given() -> None:
    messages = FrameReader(100).feed(masked(Opcode.TEXT, b"good") + b"\xff\xff")
    assert next(messages) == WebSocketMessage(Opcode.TEXT, b"good")
    with pytest.raises(FrameError):
        next(messages)


def test_a_client_refuses_masked_frames_and_a_server_unmasked_ones() -> None:
    with pytest.raises(FrameError, match="client frames must be masked"):
        list(FrameReader(100).feed(encode_frame(Opcode.TEXT, b"a")))
    with pytest.raises(FrameError, match="server frames must not be masked"):
        list(FrameReader(100, from_client=False).feed(masked(Opcode.TEXT, b"a")))


def test_a_dribbled_message_holds_no_more_memory_than_its_limit() -> None:
    limit = 64 * 1024
    reader = FrameReader(limit)
    piece = masked(Opcode.BINARY, bytes(1024), final=False)
    tracemalloc.start()
    try:
        list(reader.feed(piece))
        for _ in range(limit // 1024 - 1):
            list(reader.feed(masked(Opcode.CONTINUATION, bytes(1024), final=False)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * limit
