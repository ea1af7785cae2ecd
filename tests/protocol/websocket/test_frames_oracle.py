"""FrameReader compared with an independent implementation: wsproto reads the same bytes and must agree."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from fanline.protocol.errors import FrameError
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_masked_frame
from tests.protocol.strategies import chunked

LIMIT = 1 << 20  # wsproto has none; the limits have their own tests


class Outcome(NamedTuple):
    """The result of reading some bytes: the messages up to a close frame or the first bad byte."""

    messages: list[tuple[Opcode, object]]
    refused: bool
    half_way: bool


def ours(chunks: Sequence[bytes]) -> Outcome:
    reader = FrameReader(LIMIT)
    messages: list[tuple[Opcode, object]] = []
    try:
        for chunk in chunks:
            for message in reader.feed(chunk):
                messages.append(shown(message))
                if message.opcode is Opcode.CLOSE:
                    return Outcome(messages, refused=False, half_way=False)
    except FrameError:
        return Outcome(messages, refused=True, half_way=False)
    return Outcome(messages, refused=False, half_way=not reader.idle)


def shown(message: WebSocketMessage) -> tuple[Opcode, object]:
    if message.opcode is Opcode.CLOSE:
        return message.opcode, decode_close(message.payload)
    return message.opcode, message.payload.decode() if message.opcode is Opcode.TEXT else message.payload


def theirs(chunks: Sequence[bytes]) -> Outcome:
    connection = Connection(ConnectionType.SERVER)
    messages: list[tuple[Opcode, object]] = []
    parts: list[str | bytes] = []
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in connection.events():
            if isinstance(event, CloseConnection) and connection.state is ConnectionState.OPEN:
                return Outcome(messages, refused=True, half_way=False)  # this is how it reports a bad frame
            messages.extend(folded(event, parts))
            if isinstance(event, CloseConnection):
                return Outcome(messages, refused=False, half_way=False)
    return Outcome(messages, refused=False, half_way=bool(parts))


def folded(event: Event, parts: list[str | bytes]) -> Iterator[tuple[Opcode, object]]:
    """The complete message or control frame that an event of wsproto completes."""
    if isinstance(event, TextMessage):
        parts.append(event.data)
        if event.message_finished:
            yield Opcode.TEXT, "".join(str(part) for part in parts)
            parts.clear()
    elif isinstance(event, BytesMessage):
        parts.append(bytes(event.data))
        if event.message_finished:
            yield Opcode.BINARY, b"".join(part for part in parts if isinstance(part, bytes))
            parts.clear()
    elif isinstance(event, Ping | Pong):
        yield Opcode.PING if isinstance(event, Ping) else Opcode.PONG, bytes(event.payload)
    elif isinstance(event, CloseConnection):
        yield Opcode.CLOSE, (int(event.code), event.reason or "")


masks = st.binary(min_size=4, max_size=4)
sizes = st.sampled_from([0, 1, 2, 124, 125, 126, 127, 65535, 65536])
payloads = st.binary(max_size=20) | sizes.map(bytes)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.encode)
controls = st.builds(encode_masked_frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125), masks)
sendable_codes = st.sampled_from([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 4008, 4999])
close_payloads = st.just(b"") | st.builds(
    lambda code, text: code.to_bytes(2, "big") + text, sendable_codes, texts.filter(lambda text: len(text) < 124)
)
closes = st.builds(encode_masked_frame, st.just(Opcode.CLOSE), close_payloads, masks)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One valid message in any number of fragments, with control frames between them."""
    opcode, payload = draw(st.tuples(st.just(Opcode.TEXT), texts) | st.tuples(st.just(Opcode.BINARY), payloads))
    fragments = draw(chunked(payload))
    sent = b""
    for at, fragment in enumerate(fragments):
        kind = opcode if at == 0 else Opcode.CONTINUATION
        sent += encode_masked_frame(kind, fragment, draw(masks), final=at == len(fragments) - 1)
        sent += draw(st.just(b"") | controls) if at < len(fragments) - 1 else b""
    return sent


valid_sequences = st.builds(
    lambda frames, end: b"".join(frames) + end, st.lists(messages() | controls, max_size=6), st.just(b"") | closes
)


def raw_frame(first: int, payload: bytes, mask: bytes | None) -> bytes:
    """A frame with any first byte, masked or not, its length in the shortest form."""
    frame = encode_masked_frame(Opcode.BINARY, payload, mask or bytes(4))
    if mask is None:
        head = len(frame) - len(payload) - 4
        frame = frame[:1] + bytes((frame[1] & 0x7F,)) + frame[2:head] + payload
    return bytes((first,)) + frame[1:]


firsts = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A]) | st.integers(0, 255)
any_frames = st.builds(raw_frame, firsts, st.binary(max_size=130) | texts, masks | masks | masks | st.none())
any_sequences = st.lists(any_frames, max_size=6).map(b"".join)


@given(valid_sequences, st.data())
def test_valid_frames_cut_anywhere_mean_what_wsproto_says(sent: bytes, data: st.DataObject) -> None:
    outcome = ours(data.draw(chunked(sent)))
    assert outcome == theirs([sent])
    assert not outcome.refused
    assert not outcome.half_way


@given(any_sequences, st.data())
@example(bytes.fromhex("81fe007d00000000") + b"a" * 125, None)  # a length not in its shortest form
@example(bytes.fromhex("81ff8000000000000000"), None)  # the top bit of a length
def test_any_frames_are_refused_by_both_or_mean_the_same(sent: bytes, data: st.DataObject | None) -> None:
    mine = ours([sent] if data is None else data.draw(chunked(sent)))
    oracle = theirs([sent])
    assert mine.messages[: len(oracle.messages)] == oracle.messages
    if mine.refused:
        assert oracle.refused
    elif oracle.refused:  # wsproto checks each fragment of a text, we the complete message
        assert mine.half_way
    else:
        assert mine.messages == oracle.messages


@given(st.binary(max_size=60) | valid_sequences.flatmap(lambda sent: st.just(sent[1:])), st.data())
def test_garbage_gives_only_frame_errors_and_the_same_however_it_is_cut(sent: bytes, data: st.DataObject) -> None:
    whole, cut = ours([sent]), ours(data.draw(chunked(sent)))
    assert cut == whole
