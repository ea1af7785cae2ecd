"""Inboxes of plain clients: the pong to a ping behind a message acknowledges it, unless the client does so itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.channels.inbox import read_cursor
from fanline.engine.routes import Acknowledge, Route
from fanline.engine.settings import EngineSettings
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.websocket.ack_pings import ack_ping, acknowledged_offset
from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_masked_frame
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import MASK, RawClient, connect_raw

INBOX = "user:anna"


@asynccontextmanager
async def serving(**route: Any) -> AsyncIterator[RunningEngine]:
    settings = EngineSettings(routes={"/ws": Route(joins=("user:{user}",), **route)})
    with trio.fail_after(30):
        async with running_engine(settings, access=token_access()) as engine:
            yield engine


@asynccontextmanager
async def anna(engine: RunningEngine, *, answers_pings: bool = True) -> AsyncIterator[RawClient]:
    """Connected; her first message has been read."""
    async with connect_raw(engine.host, engine.port) as client:
        client.answers_pings = answers_pings
        await client.upgrade(None, Authorization=f"Bearer {token('anna')}")
        assert (await client.json())["type"] == "connection_established"
        yield client


async def publish(engine: RunningEngine, *texts: str) -> None:
    for text in texts:
        await engine.bus.store(INBOX, encode_json(Envelope("pub", id=text, event=text)), None)


async def heard(client: RawClient, number: int) -> list[str]:
    return [(await client.json())["type"] for _ in range(number)]


async def settled(client: RawClient) -> None:
    """Everything the server has sent before is read, and answered."""
    assert (await client.ask({"type": "ping", "timestamp": 1}))["type"] == "pong"


async def until_acknowledged(engine: RunningEngine, offset: int) -> None:
    while await cursor(engine) < offset:
        await trio.sleep(0.01)


async def cursor(engine: RunningEngine) -> int:
    state = await engine.bus.stream_state(INBOX)
    return await read_cursor(engine.bus, INBOX, state.epoch)


async def test_a_client_that_never_acknowledges_gets_nothing_twice_over_ten_reconnects() -> None:
    async with serving() as engine:
        await publish(engine, "a", "b")
        for number in range(10):
            async with anna(engine) as client:
                expected = ["a", "b"] if number == 0 else [f"offline-{number}"]
                assert await heard(client, len(expected)) == expected
                await publish(engine, f"live-{number}")
                assert await heard(client, 1) == [f"live-{number}"]
                await settled(client)
                await until_acknowledged(engine, 3 + 2 * number)
            await publish(engine, f"offline-{number + 1}")


async def test_a_client_whose_connection_dies_before_its_pong_loses_nothing() -> None:  # S4-32
    async with serving() as engine:
        await publish(engine, "a")
        for _ in range(3):
            async with anna(engine, answers_pings=False) as client:
                assert await heard(client, 1) == ["a"]
                await settled(client)
        assert await cursor(engine) == 0


@pytest.mark.parametrize("explicit", ["route", "ack"])
async def test_a_client_that_acknowledges_itself_is_not_acknowledged_for(explicit: str) -> None:  # S3-39
    async with serving(ack=Acknowledge.EXPLICIT if explicit == "route" else Acknowledge.AUTO) as engine:
        async with anna(engine) as client:
            if explicit == "ack":
                await client.say({"type": "ack", "message_id": "nothing"})
                assert (await client.json())["type"] == "error"
            await publish(engine, "a", "b")
            assert await heard(client, 2) == ["a", "b"]
            await settled(client)
            await client.say({"type": "ack", "message_id": "a"})
            await until_acknowledged(engine, 1)
            await trio.sleep(0.3)  # in which an automatic one would be written
            assert await cursor(engine) == 1
        async with anna(engine) as client:
            assert await heard(client, 1) == ["b"]


async def test_a_pong_that_nobody_asked_for_acknowledges_nothing() -> None:
    (ping,) = FrameReader(1000, from_client=False).feed(ack_ping(INBOX, 99))
    async with serving() as engine:
        await publish(engine, "a")
        async with anna(engine, answers_pings=False) as client:
            assert await heard(client, 1) == ["a"]
            for payload in (b"a", b"", ping.payload, ack_ping("user:bob", 1)[2:], b"a" * 125):
                await client.send(encode_masked_frame(Opcode.PONG, payload, MASK))
            await settled(client)
            await trio.sleep(0.3)
            assert await cursor(engine) == 0


async def test_v1_clients_are_sent_no_such_ping() -> None:
    async with serving() as engine:
        await publish(engine, "a")
        async with connect_raw(engine.host, engine.port) as client:
            await client.upgrade(Authorization=f"Bearer {token('anna')}")
            client.answers_pings = True
            await client.json()
            await client.say(msgspec.json.encode({"t": "sub", "c": INBOX, "i": "1"}))
            assert [(await client.json())["t"] for _ in range(2)] == ["ok", "pub"]
            assert (await client.ask({"t": "ping", "i": "2"}))["t"] == "pong"
            await trio.sleep(0.3)
            assert await cursor(engine) == 0


@given(st.integers(0, 2**63 - 1), st.text(min_size=1, max_size=200))
def test_a_pong_names_the_offset_of_its_ping_on_its_channel_alone(offset: int, channel: str) -> None:
    (ping,) = FrameReader(1000, from_client=False).feed(ack_ping(channel, offset))
    assert acknowledged_offset(ping.payload, channel) == offset
    assert acknowledged_offset(ping.payload, f"{channel}x") is None
    assert acknowledged_offset(ping.payload[:-1], channel) is None
