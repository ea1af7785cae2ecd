"""A history is encoded once for all clients that join together, and joins hold no more than a piece of it each."""

import gc
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec import Raw

from fanline.engine.channels.durable.history import PIECE_BYTES
from fanline.engine.channels.joining.history_sender import FRAMES_SECONDS, SEND_BYTES, SharedFrames
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.outbox import Outbox
from fanline.engine.settings import EngineSettings
from fanline.protocol.dialects import CBOR, JSON, v1
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, encode_cbor
from fanline.protocol.websocket.frames import Opcode
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect

CHANNEL = "project:1"
COUNT, SIZE = 300, 20_000


def message(offset: int, previous: int = 0) -> Envelope:
    return Envelope(MessageType.PUB, channel=CHANNEL, offset=offset, previous=previous, data=Raw(b"[1,2]"))


class CountedEncodings:
    """How often each message was converted to CBOR, by its offset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: dict[int, int] = {}
        monkeypatch.setattr(v1, "encode_cbor", self._encode)

    def _encode(self, envelope: Envelope) -> bytes:
        if envelope.type == MessageType.PUB:
            self.counts[envelope.offset or 0] = self.counts.get(envelope.offset or 0, 0) + 1
        return encode_cbor(envelope)


# --- frames -------------------------------------------------------------------------------------------------------


def test_a_frame_that_is_costly_to_make_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, frames, encoding = (
        CountedEncodings(monkeypatch),
        SharedFrames(clock=lambda: 0.0),
        encoding_of(CBOR, deflated=False),
    )
    envelope = message(1)
    assert frames.of(encoding, envelope) == frames.of(encoding, envelope) == encoding.encode(envelope)
    assert frames.of(encoding, message(2)) != frames.of(encoding, envelope)
    assert counted.counts == {1: 2, 2: 1}


def test_a_frame_is_made_again_when_the_log_has_found_what_the_message_follows_on() -> None:
    frames, encoding, envelope = (
        SharedFrames(clock=lambda: 0.0),
        encoding_of(CBOR, deflated=False),
        message(5, previous=0),
    )
    before = frames.of(encoding, envelope)
    envelope.previous = 4
    assert frames.of(encoding, envelope) == encoding.encode(envelope) != before


def test_encodings_do_not_share_frames() -> None:
    frames, envelope = SharedFrames(clock=lambda: 0.0), message(1)
    for dialect, deflated in ((CBOR, False), (CBOR, True), (JSON, True)):
        encoding = encoding_of(dialect, deflated)
        assert frames.of(encoding, envelope) == encoding.encode(envelope)
    assert len(frames._kept) == 3
    assert not encoding_of(JSON, deflated=False).costly


def test_the_frames_that_are_kept_are_bounded_and_the_longest_unused_goes_first() -> None:
    frames, encoding = SharedFrames(2000, lambda: 0.0), encoding_of(CBOR, deflated=False)
    messages = [message(offset) for offset in range(10)]
    for envelope in messages:
        frames.of(encoding, messages[0])
        frames.of(encoding, envelope)
        assert sum(len(kept.frame) + 300 for kept in frames._kept.values()) == frames._bytes <= 2000
    assert [kept.envelope.offset for kept in frames._kept.values()][-1] == 9
    assert 0 in [kept.envelope.offset for kept in frames._kept.values()]


def test_a_frame_that_no_join_has_used_for_a_while_is_given_up() -> None:
    now = 0.0
    frames, encoding = SharedFrames(clock=lambda: now), encoding_of(CBOR, deflated=False)
    first, second = message(1), message(2)
    frames.of(encoding, first)
    frames.of(encoding, second)
    now = FRAMES_SECONDS
    frames.of(encoding, first)
    now += 1.0
    frames.of(encoding, first)
    assert [kept.envelope for kept in frames._kept.values()] == [first]
    assert frames._bytes == len(encoding.encode(first)) + 300


# --- joins --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def engine_with_history(*, send_buffer: int | None = None, **settings: Any) -> AsyncIterator[RunningEngine]:
    """A running engine, whose channel has a history of some megabytes."""
    namespaces = {"project": Namespace(durable=True, history=COUNT)}
    with trio.fail_after(30):
        engine_settings = EngineSettings(namespaces=namespaces, **settings)
        async with running_engine(engine_settings, send_buffer=send_buffer) as engine:
            for number in range(1, COUNT + 1):
                data = [number, "x" * SIZE]
                await engine.bus.store(CHANNEL, json.dumps(data).encode(), f"{number}")
            yield engine


async def join(client: RawClient) -> tuple[Envelope, list[Envelope]]:
    """Join over CBOR: the answer, and everything up to the newest message."""
    command = Envelope(MessageType.SUB, channel=CHANNEL, id="s", offset=0)
    await client.say(encode_cbor(command), Opcode.BINARY)
    answer = decode_cbor((await client.message()).payload)
    received = list[Envelope]()
    while not received or received[-1].offset != COUNT:
        received.append(decode_cbor((await client.message()).payload))
    return answer, received


@pytest.mark.parametrize("log_bytes", [256 << 20, 1 << 20], ids=["from the log", "from the stream"])
async def test_clients_that_join_together_share_the_reading_and_the_encoding(
    monkeypatch: pytest.MonkeyPatch, log_bytes: int
) -> None:
    counted = CountedEncodings(monkeypatch)
    async with engine_with_history(log_bytes=log_bytes) as engine, AsyncExitStack() as stack:
        reads = engine.bus.reads

        async def check(client: RawClient) -> None:
            _, received = await join(client)
            assert [(each.offset, each.previous) for each in received] == [(n + 1, n) for n in range(COUNT)]

        clients = [
            await stack.enter_async_context(connect(engine.host, engine.port, "fanline.v1.cbor")) for _ in range(5)
        ]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(check, client)
        assert engine.bus.reads - reads <= 2
    assert counted.counts == dict.fromkeys(range(1, COUNT + 1), 1)


async def test_a_long_history_is_answered_with_its_first_part_and_what_follows_counts_as_live() -> None:
    async with engine_with_history() as engine, connect(engine.host, engine.port, "fanline.v1.cbor") as client:
        answer, received = await join(client)
        count = answer.value["count"]
        assert (answer.offset, answer.value) == (count, {"recovered": True, "count": count})
        assert PIECE_BYTES <= sum(map(weight_of_payload, received[:count])) < PIECE_BYTES + 2 * SIZE
        assert [(each.offset, each.previous) for each in received] == [(n + 1, n) for n in range(COUNT)]


async def test_the_newest_messages_of_a_long_history_are_found_without_holding_it() -> None:
    newest = COUNT - 100
    async with engine_with_history() as engine, connect(engine.host, engine.port) as client:
        answer = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "d": {"last": newest}})
        received = [(await client.json())["o"] for _ in range(newest)]
        assert received == list(range(101, COUNT + 1))
        assert answer["o"] == 100 + answer["d"]["count"] < COUNT


async def test_a_client_that_stops_reading_holds_a_piece_of_its_history_and_no_more() -> None:
    before = {id(each) for each in gc.get_objects() if isinstance(each, Outbox)}
    async with engine_with_history(send_buffer=65_536) as engine, connect(engine.host, engine.port) as client:
        await client.say({"t": "sub", "c": CHANNEL, "i": "s", "o": 0})
        (outbox,) = (each for each in gc.get_objects() if isinstance(each, Outbox) and id(each) not in before)
        while not outbox.backlog_bytes:
            await trio.lowlevel.checkpoint()
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
            assert 0 < outbox.backlog_bytes <= SEND_BYTES + 2 * SIZE
        await client.message()
        assert [(await client.json())["o"] for _ in range(COUNT)] == list(range(1, COUNT + 1))


def weight_of_payload(envelope: Envelope) -> int:
    """What a message of the history weighs in the log: its JSON, and an envelope."""
    return len(json.dumps(envelope.value)) + 500
