"""A client that sends more than it may is told so once, read more slowly, and loses nothing."""

from datetime import UTC, datetime, timedelta

import pytest
import trio

from fanline.engine.sessions import rate
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket import deflate
from fanline.protocol.websocket.frames import Opcode, encode_masked_frame
from tests.engine.running import running_engine
from tests.support.raw_client import MASK, connect, connect_raw

PING_COMMAND = b'{"v":1,"t":"ping","i":"p"}'
PING = encode_masked_frame(Opcode.TEXT, PING_COMMAND, MASK)
EMPTY_FRAGMENT = encode_masked_frame(Opcode.CONTINUATION, b"", MASK, final=False)
FRAGMENTS = (
    encode_masked_frame(Opcode.TEXT, b"", MASK, final=False)
    + 600 * EMPTY_FRAGMENT
    + encode_masked_frame(Opcode.CONTINUATION, PING_COMMAND, MASK)
)
"""One command in six hundred fragments."""


def deflated(payload: bytes) -> bytes:
    """One message, deflated."""
    frame = encode_masked_frame(Opcode.TEXT, deflate.compress(payload), MASK)
    return bytes((frame[0] | 0x40,)) + frame[1:]


async def test_a_client_that_is_too_fast_is_warned_once_and_answered_in_full() -> None:
    with trio.fail_after(30):
        async with running_engine(EngineSettings(messages_per_second=200.0)) as engine:
            async with connect(engine.host, engine.port) as client:
                await client.send(PING * 400)
                said = [await client.json() for _ in range(401)]
                assert [answer["t"] for answer in said].count("pong") == 400
                (warning,) = [answer for answer in said if answer["t"] == "err"]
                assert warning["d"]["code"] == "limit_exceeded"
                assert engine.server.statistics().slowed == 1


async def test_a_plain_client_is_warned_in_words_that_it_knows() -> None:  # S3-42
    with trio.fail_after(30):
        async with running_engine(EngineSettings(messages_per_second=200.0)) as engine:
            async with connect(engine.host, engine.port, None) as client:
                ping = encode_masked_frame(Opcode.TEXT, b'{"type":"ping"}', MASK)
                await client.send(ping * 400)
                (warning,) = [each for each in [await client.json() for _ in range(401)] if each["type"] != "pong"]
                assert (warning["type"], "more slowly" in warning["message"]) == ("error", True)
                said = datetime.fromisoformat(warning["timestamp"])
                assert abs(datetime.now(UTC) - said) < timedelta(minutes=1)


async def test_a_client_that_floods_on_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:  # S3-41, S3-42, S5-50
    monkeypatch.setattr(rate, "CLOSE_AFTER", 0.5)
    with trio.fail_after(30):
        async with running_engine(EngineSettings(messages_per_second=200.0)) as engine:
            async with connect(engine.host, engine.port) as client:
                await client.send(PING * 1000)
                assert await client.closed() == (4429, "over a limit")


async def test_fragments_count_as_messages_do() -> None:
    with trio.fail_after(30):
        async with running_engine(EngineSettings(messages_per_second=200.0)) as engine:
            async with connect(engine.host, engine.port) as client:
                await client.send(FRAGMENTS)
                assert {(await client.json())["t"] for _ in range(2)} == {"err", "pong"}
                assert engine.server.statistics().slowed == 1


async def test_a_message_is_charged_with_the_size_to_which_it_is_inflated() -> None:
    large = b'{"v":1,"t":"ping","d":"%s"}' % (b"x" * 50_000)
    limits = EngineSettings(compression=True, bytes_per_second=100_000.0)
    with trio.fail_after(30):
        async with running_engine(limits) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(Sec_WebSocket_Extensions="permessage-deflate")
                await client.message()
                await client.send(deflated(large) * 4)
                while (await client.json())["t"] != "err":
                    pass
                assert engine.server.statistics().slowed == 1


DENSE = {
    "fanline.v1.json": encode_masked_frame(Opcode.TEXT, b'{"v":1,"t":"ping","d":[' + b"[]," * 20_000 + b"0]}", MASK),
    "fanline.v1.cbor": encode_masked_frame(
        Opcode.BINARY, b"\xa3\x00\x01\x01\x64ping\x08\x99\x3e\x80" + b"\x80" * 16_000, MASK
    ),
}
"""A message of thousands of empty arrays, of a size that no other limit is about."""


@pytest.mark.parametrize("subprotocol", DENSE)
async def test_messages_of_many_tiny_values_are_charged_with_the_work_that_they_take(subprotocol: str) -> None:
    with trio.fail_after(120):
        async with running_engine(EngineSettings(reading_share=0.01)) as engine:
            async with connect(engine.host, engine.port, subprotocol) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send, DENSE[subprotocol] * 3)
                    while b"limit_exceeded" not in (await client.message()).payload:
                        pass
                    nursery.cancel_scope.cancel()
                assert engine.server.statistics().slowed == 1


async def test_without_a_share_the_same_messages_are_not_charged() -> None:
    with trio.fail_after(90):
        async with running_engine(EngineSettings(reading_share=0, bytes_per_second=0)) as engine:
            async with connect(engine.host, engine.port) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send, DENSE["fanline.v1.json"] * 3)
                    for _ in range(3):
                        assert (await client.json())["t"] == "pong"
                assert engine.server.statistics().slowed == 0


async def test_a_cbor_message_of_too_many_values_is_refused() -> None:
    dense = b"\xa3\x00\x01\x01\x64ping\x08\x99\xea\x60" + b"\x80" * 60_000
    with trio.fail_after(30):
        async with running_engine() as engine, connect(engine.host, engine.port, "fanline.v1.cbor") as client:
            await client.say(dense, Opcode.BINARY)
            assert b"too many values" in (await client.message()).payload


async def test_a_client_that_asks_for_much_is_read_more_slowly_without_a_warning() -> None:
    sub = {"v": 1, "t": "sub", "c": "project:1", "o": 0, "i": "s"}
    with trio.fail_after(30):
        async with running_engine(EngineSettings(bytes_per_second=20_000.0)) as engine:
            for _ in range(10):
                await engine.bus.store("project:1", b'{"v":1,"t":"pub","d":"%s"}' % (b"x" * 5000))
            async with connect(engine.host, engine.port) as client:
                await client.say(sub)
                answers = [await client.json() for _ in range(11)]
                assert [answer["t"] for answer in answers] == ["ok"] + ["pub"] * 10
                begun = trio.current_time()
                await client.say({"v": 1, "t": "ping", "i": "p"})
                assert (await client.json())["t"] == "pong"
                assert trio.current_time() - begun > 0.5
                statistics = engine.server.statistics()
                assert (statistics.answers_slowed > 0, statistics.slowed) == (True, 0)
