"""permessage-deflate: shared compression, bounded inflation, and which offers are accepted."""

import random
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket.deflate import MIN_BYTES, accepts, compress, decompress
from fanline.protocol.websocket.frames import (
    FrameReader,
    Opcode,
    WebSocketMessage,
    apply_mask,
    encode_deflated_frame,
    encode_frame,
)
from tests.support.seeds import new_seed

MASK = b"\x0a\x0b\x0c\x0d"


def masked(first: int, payload: bytes) -> bytes:
    """A client frame with the first byte as given."""
    head = (
        bytes((first, 0x80 | len(payload))) if len(payload) < 126 else bytes((first, 0xFE)) + len(payload).to_bytes(2)
    )
    return head + MASK + apply_mask(payload, MASK)


@given(payload=st.binary(max_size=5000))
def test_decompress_undoes_compress(payload: bytes) -> None:
    assert decompress(compress(payload), len(payload)) == payload


@given(payload=st.binary(max_size=300))
def test_garbage_gives_only_our_error(payload: bytes) -> None:
    with suppress(FrameError):
        assert len(decompress(payload, 1000)) <= 1000


def test_a_bomb_is_refused_without_being_inflated() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(bytes(50_000_000)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 60_000
    with pytest.raises(FrameError) as caught:
        decompress(data.removesuffix(b"\x00\x00\xff\xff"), 65_536)
    assert caught.value.reason is CloseReason.TOO_BIG


def test_a_long_message_is_compressed_and_a_short_one_is_not() -> None:
    long, short = b"x" * 500, b"x" * (MIN_BYTES - 1)
    assert encode_deflated_frame(Opcode.TEXT, short) == encode_frame(Opcode.TEXT, short)
    frame = encode_deflated_frame(Opcode.TEXT, long)
    assert frame[0] == 0xC1
    assert len(frame) < 50
    reader = FrameReader(1000, from_client=False, deflated=True)
    assert list(reader.feed(frame)) == [WebSocketMessage(Opcode.TEXT, long)]


def test_a_compressed_message_may_come_in_fragments_and_between_plain_ones() -> None:
    data = compress(b"hello " * 50)
    frames = masked(0x41, data[:10]) + masked(0x89, b"ping") + masked(0x80, data[10:]) + masked(0x81, b"plain")
    rng = random.Random(new_seed())
    reader, messages = FrameReader(1000, deflated=True), list[WebSocketMessage]()
    while frames:
        cut = rng.randrange(1, 20)
        messages += reader.feed(frames[:cut])
        frames = frames[cut:]
    assert messages == [(Opcode.PING, b"ping"), (Opcode.TEXT, b"hello " * 50), (Opcode.TEXT, b"plain")]
    assert reader.idle


@pytest.mark.parametrize("first", [0xC9, 0xC0, 0xA1, 0x91], ids=["control", "continuation", "rsv2", "rsv3"])
def test_a_reserved_bit_elsewhere_is_refused(first: int) -> None:
    with pytest.raises(FrameError, match="reserved bits"):
        list(FrameReader(1000, deflated=True).feed(masked(first, b"x")))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits", True),
        ('permessage-deflate; client_max_window_bits="12"; server_no_context_takeover', True),
        ("permessage-deflate; server_max_window_bits=10", False),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits=7", False),
        ("permessage-deflate; unknown", False),
        ("x-webkit-deflate-frame, permessage-bzip2", False),
    ],
)
def test_only_offers_that_our_answer_matches_are_accepted(header: str | None, expected: bool) -> None:
    assert accepts(header) is expected
