"""A client that sends more than it may is told so once, read more slowly, and loses nothing."""

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


async def test_a_client_that_floods_on_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
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
