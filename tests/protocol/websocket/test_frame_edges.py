"""WebSocket frames at the edges: what a refusal says, where a text is cut, and what exactly meets a limit."""

import pytest

from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket.deflate import MIN_BYTES
from fanline.protocol.websocket.frames import (
    FrameReader,
    Opcode,
    WebSocketMessage,
    decode_close,
    encode_close,
    encode_deflated_frame,
    encode_masked_frame,
)

MASK = b"\x01\x02\x03\x04"
COMPRESSED = 0x40


def masked(opcode: Opcode, payload: bytes = b"", *, final: bool = True) -> bytes:
    return encode_masked_frame(opcode, payload, MASK, final=final)


def fragments(*payloads: bytes) -> bytes:
    """One text message in as many frames."""
    opcodes = [Opcode.TEXT, *[Opcode.CONTINUATION] * (len(payloads) - 1)]
    last = len(payloads) - 1
    return b"".join(masked(opcodes[at], payload, final=at == last) for at, payload in enumerate(payloads))


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\x83\x80" + MASK, "^unknown opcode 3$"),
        (b"\xbf\x80" + MASK, "^unknown opcode 15$"),
        (b"\xc1\x80" + MASK, "^reserved bits are set, but no extension was negotiated$"),
        (b"\x81\x00", "^client frames must be masked$"),
        (b"\x09\x80" + MASK, "^control frame fragmented or over 125 bytes$"),
        (b"\x89\xfe\x00\x7e" + MASK, "^control frame fragmented or over 125 bytes$"),
        (b"\x81\xfe\x00\x7d" + MASK, "^frame length not in its shortest form$"),
        (masked(Opcode.CONTINUATION), "^continuation "),
        (masked(Opcode.TEXT, final=False) + masked(Opcode.TEXT), "^new message inside a fragmented one$"),
    ],
)
def test_a_refusal_says_which_rule_was_broken(sent: bytes, text: str) -> None:
    with pytest.raises(FrameError, match=text) as caught:
        list(FrameReader(1000).feed(sent))
    assert caught.value.reason is CloseReason.PROTOCOL_ERROR


def test_a_server_that_masks_is_told_so() -> None:
    with pytest.raises(FrameError, match=r"^server frames must not be masked$"):
        list(FrameReader(1000, from_client=False).feed(masked(Opcode.TEXT)))


@pytest.mark.parametrize(
    ("payload", "text"), [(b"\x03", "^close frame of one byte$"), (b"\x03\xed", "^close code 1005 may not be sent$")]
)
def test_a_refused_close_says_why(payload: bytes, text: str) -> None:
    with pytest.raises(FrameError, match=text):
        decode_close(payload)


@pytest.mark.parametrize(("text", "shown"), [("x" * 200, "x" * 123), ("é" * 100, "é" * 61), ("日" * 50, "日" * 41)])
def test_a_close_frame_holds_as_much_of_its_text_as_fits(text: str, shown: str) -> None:
    (message,) = FrameReader(0, from_client=False).feed(encode_close(CloseReason.POLICY, text))
    assert decode_close(message.payload) == (1008, shown)


def test_the_shortest_payload_that_is_compressed_has_exactly_the_least_size() -> None:
    assert encode_deflated_frame(Opcode.TEXT, b"x" * MIN_BYTES)[0] & COMPRESSED
    assert not encode_deflated_frame(Opcode.TEXT, b"x" * (MIN_BYTES - 1))[0] & COMPRESSED


def test_a_close_frame_may_stand_between_fragments() -> None:
    sent = masked(Opcode.TEXT, b"a", final=False) + masked(Opcode.CLOSE, b"\x03\xe8")
    assert list(FrameReader(1000).feed(sent)) == [WebSocketMessage(Opcode.CLOSE, b"\x03\xe8")]


def test_each_message_has_the_whole_limit_to_itself() -> None:
    assert len(list(FrameReader(10).feed(fragments(b"12345", b"67890") * 3))) == 3


def test_an_empty_fragment_counts_as_one_byte() -> None:
    assert len(list(FrameReader(3).feed(fragments(b"", b"", b"", b"")))) == 1
    with pytest.raises(FrameError, match=r"^message over 3 bytes$"):
        list(FrameReader(3).feed(fragments(b"", b"", b"", b"", b"")))
