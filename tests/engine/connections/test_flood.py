"""A client that sends more than it may is told so once, read more slowly, and loses nothing."""

import pytest
import trio

from fanline.engine.sessions import rate
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.frames import Opcode, encode_masked_frame
from tests.engine.running import running_engine
from tests.support.raw_client import MASK, connect

PING = encode_masked_frame(Opcode.TEXT, b'{"v":1,"t":"ping","i":"p"}', MASK)


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
