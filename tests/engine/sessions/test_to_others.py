"""What is published to the others, over real sockets: the sender does not hear it, and its chain stays whole."""

from typing import Any

import pytest
import trio

import fanline
from fanline.engine.settings import EngineSettings
from fanline.protocol.envelope import Envelope, decode_cbor, encode_cbor, encode_json
from fanline.protocol.websocket.frames import Opcode
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect

CHANNELS = ["session:9", "typing:9"]


async def subscribe(client: RawClient, *channels: str) -> None:
    for channel in channels:
        assert (await client.ask({"v": 1, "t": "sub", "i": "s", "c": channel}))["t"] == "ok"


async def publish(engine: RunningEngine, channel: str, data: Any, **fields: Any) -> None:
    """As a producer does."""
    await engine.bus.publish(channel, encode_json(Envelope("pub", data=data, **fields)))


@pytest.mark.parametrize("channel", CHANNELS)
async def test_the_sender_does_not_hear_what_it_says_to_the_others_and_nobody_learns_who_it_was(channel: str) -> None:
    with trio.fail_after(10):
        async with (
            running_engine() as engine,
            connect(engine.host, engine.port) as one,
            connect(engine.host, engine.port) as other,
        ):
            await subscribe(one, channel)
            await subscribe(other, channel)
            said = {"v": 1, "t": "pub", "i": "1", "c": channel, "d": 1, "n": one.connection, "x": {"room_id": "9"}}
            assert (await one.ask(said))["t"] == "ok"
            heard = await other.json()
            assert (heard["d"], heard["x"]) == (1, {"room_id": "9"})
            assert "n" not in heard
            await publish(engine, channel, 2)
            assert ((await one.json())["d"], (await other.json())["d"]) == (2, 2)


async def test_in_cbor_and_plain_the_named_connection_is_left_out_too() -> None:
    with trio.fail_after(10):
        async with (
            running_engine() as engine,
            connect(engine.host, engine.port, "fanline.v1.cbor") as in_cbor,
            connect(engine.host, engine.port, None) as plain,
            connect(engine.host, engine.port) as viewer,
        ):
            await in_cbor.say(encode_cbor(Envelope("sub", channel="session:9", id="s")), Opcode.BINARY)
            assert decode_cbor((await in_cbor.message()).payload).type == "ok"
            await plain.ask({"type": "subscribe", "channel": "session:9"})
            await subscribe(viewer, "session:9")
            await publish(engine, "session:9", 1, excluded=plain.connection)
            await publish(engine, "session:9", 2)
            assert [(await viewer.json())["d"] for _ in range(2)] == [1, 2]
            assert (await plain.json())["data"] == {"value": 2}
            received = [decode_cbor((await in_cbor.message()).payload) for _ in range(2)]
            assert [(each.value, each.excluded) for each in received] == [(1, None), (2, None)]


async def test_the_next_message_follows_on_the_last_one_that_the_connection_got() -> None:
    with trio.fail_after(10):
        async with (
            running_engine() as engine,
            connect(engine.host, engine.port) as one,
            connect(engine.host, engine.port) as other,
        ):
            await subscribe(one, "session:9")
            await subscribe(other, "session:9")
            for number, excluded in enumerate([None, one.connection, one.connection, None, None]):
                await publish(engine, "session:9", number, excluded=excluded)
            links = [(m["d"], m["o"], m["p"]) for m in [await one.json() for _ in range(3)]]
            assert links == [(0, 1, 0), (3, 4, 1), (4, 5, 4)]
            links = [(m["d"], m["o"], m["p"]) for m in [await other.json() for _ in range(5)]]
            assert links == [(number, number + 1, number) for number in range(5)]


async def test_a_client_of_the_sdk_finds_no_hole_and_asks_for_nothing_again() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            url = f"ws://{engine.host}:{engine.port}/ws"
            async with fanline.Client(url) as one, fanline.Client(url) as other:
                async with (
                    one.subscribe("session:9", gaps=True) as mine,
                    other.subscribe("session:9", gaps=True) as theirs,
                ):
                    reads = engine.bus.reads
                    for number in range(50):
                        await one.publish("session:9", number, to_others=number % 3 != 0, x={"number": number})
                    heard = [await anext(mine) for _ in range(17)]
                    others = [await anext(theirs) for _ in range(50)]
                    commands = engine.server.statistics().commands
                    await one.ping()
                    assert engine.server.statistics().commands == commands + 1
                    assert engine.bus.reads == reads
    assert [each.x for each in heard if isinstance(each, fanline.Message)] == [{"number": n} for n in range(0, 50, 3)]
    assert [each.x for each in others if isinstance(each, fanline.Message)] == [{"number": n} for n in range(50)]


async def test_a_slow_client_that_is_left_out_gets_a_whole_chain_once_it_reads() -> None:
    settings = EngineSettings(outbox_bytes=32 * 1024 * 1024)
    with trio.fail_after(30):
        async with (
            running_engine(settings, send_buffer=8192) as engine,
            connect(engine.host, engine.port) as slow,
        ):
            await subscribe(slow, "session:9")
            for number in range(400):
                await publish(
                    engine, "session:9", [number, "x" * 5000], excluded=slow.connection if number % 4 == 1 else None
                )
            position = 0
            for number in [number for number in range(400) if number % 4 != 1]:
                message = await slow.json()
                assert message["d"][0] == number
                assert message["p"] == position
                position = message["o"]
