"""How much work a peer can make with one message: counted in bytes, whatever the message is cut into."""

import zlib
from collections.abc import Iterator

import pytest

from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket import deflate
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, encode_frame, encode_masked_frame

MASK = b"\x01\x02\x03\x04"
SIZE = 1 << 20
_look, _open_inflater = FrameReader._frame, zlib.decompressobj


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where in its buffer a reader has looked for a frame; only a look that finds one costs more than its head."""
    seen = list[int]()

    def look(reader: FrameReader, buffer: bytes | bytearray, start: int) -> object:
        seen.append(start)
        return _look(reader, buffer, start)

    monkeypatch.setattr(FrameReader, "_frame", look)
    return seen


def read(reader: FrameReader, data: bytes, step: int) -> Iterator[WebSocketMessage]:
    for start in range(0, len(data), step):
        yield from reader.feed(data[start : start + step])


@pytest.mark.parametrize("step", [100, 1000, SIZE])
@pytest.mark.parametrize("from_client", [True, False])
def test_a_large_message_is_looked_at_a_few_times_however_many_reads_it_takes(
    looks: list[int], step: int, from_client: bool
) -> None:
    payload = b"x" * SIZE
    data = encode_masked_frame(Opcode.TEXT, payload, MASK) if from_client else encode_frame(Opcode.TEXT, payload)
    reader = FrameReader(SIZE, from_client=from_client)
    assert list(read(reader, data, step)) == [(Opcode.TEXT, payload)]
    assert len(looks) <= 4


def test_an_incomplete_frame_grows_in_one_buffer() -> None:
    reader = FrameReader(SIZE)
    data = encode_masked_frame(Opcode.BINARY, bytes(SIZE), MASK)
    kept = set[int]()
    for start in range(0, SIZE, 4096):
        assert not list(reader.feed(data[start : start + 4096]))
        kept.add(id(reader._buffer))
    assert len(kept) == 1


@pytest.mark.parametrize("step", [5, 1000, 10**9])
def test_each_fragment_of_a_message_is_looked_at_a_few_times_however_many_there_are(
    looks: list[int], step: int
) -> None:
    count = 20_000
    opcodes = [Opcode.TEXT, *[Opcode.CONTINUATION] * (count - 1)]
    data = b"".join(encode_masked_frame(op, b"x", MASK, final=n == count - 1) for n, op in enumerate(opcodes))
    assert list(read(FrameReader(count), data, step)) == [(Opcode.TEXT, b"x" * count)]
    assert len(looks) <= 3 * count


class CountingInflater:
    """Stands for zlib: counts what goes in and what comes out."""

    def __init__(self) -> None:
        self.calls = self.taken = self.made = 0

    def open(self, wbits: int) -> "CountingInflater":
        self._inner = _open_inflater(wbits)
        return self

    def decompress(self, data: bytes, most: int) -> bytes:
        made = self._inner.decompress(data, most)
        self.calls, self.taken, self.made = self.calls + 1, self.taken + len(data), self.made + len(made)
        return made

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


def deflated_frame(data: bytes) -> bytes:
    frame = encode_masked_frame(Opcode.TEXT, data, MASK)
    return bytes((frame[0] | 0x40,)) + frame[1:]


@pytest.mark.parametrize("bomb", ["zeros", "empty blocks"])
def test_of_a_bomb_no_more_is_inflated_than_a_message_may_have(monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    limit = 65_536
    data = deflate.compress(bytes(40_000_000)) if bomb == "zeros" else b"\x00\x00\x00\xff\xff" * (limit // 5)
    counted = CountingInflater()
    monkeypatch.setattr(zlib, "decompressobj", counted.open)
    reader = FrameReader(limit, deflated=True)
    frame = deflated_frame(data)
    if bomb == "zeros":
        with pytest.raises(FrameError) as caught:
            list(read(reader, frame, 1000))
        assert caught.value.reason is CloseReason.TOO_BIG
    else:
        assert list(read(reader, frame, 1000)) == [(Opcode.TEXT, b"")]
    assert counted.made <= limit + 1
    assert (counted.calls, counted.taken) == (1, len(data) + 4)


def test_messages_are_inflated_one_after_the_other_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = CountingInflater()
    data = deflated_frame(deflate.compress(bytes(60_000))) * 10
    monkeypatch.setattr(zlib, "decompressobj", counted.open)
    messages = FrameReader(65_536, deflated=True).feed(data)
    for number in range(1, 11):
        next(messages)
        assert counted.made == number * 60_000
