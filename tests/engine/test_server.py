"""What the engine does for well-behaved clients, on real sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import ANY

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanline.engine import server as server_module
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.frames import Opcode, encode_masked_frame
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import MASK, RawClient, connect, connect_raw, upgrade_request


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    with trio.fail_after(20):
        async with running_engine() as engine:
            yield engine


async def subscribe(client: RawClient, channel: str) -> None:
    answer = await client.ask({"t": "sub", "c": channel, "i": "s"})
    assert (answer["t"], answer["c"], answer["i"]) == ("ok", channel, "s")


async def test_a_message_reaches_every_dialect_in_its_own_words(engine: RunningEngine) -> None:
    async with (
        connect(engine.host, engine.port) as json,
        connect(engine.host, engine.port, "fanline.v1.cbor") as cbor,
        connect(engine.host, engine.port, None) as plain,
    ):
        await subscribe(json, "news:all")
        await cbor.say(b"\xa2\x01csub\x02hnews:all", Opcode.BINARY)
        await plain.say({"type": "subscribe", "channel": "news:all"})
        assert (await plain.json())["subscribed"] is True
        await cbor.say(b"\xa2\x01dping\x06a1", Opcode.BINARY)
        assert b"dpong" in (await cbor.message()).payload
        await engine.bus.publish("news:all", b'{"v":1,"e":"headline","ts":1000,"d":{"x":1}}')
        assert await json.json() == {
            "v": 1, "t": "pub", "c": "news:all", "e": "headline", "d": {"x": 1}, "ts": 1000
        }  # fmt: skip
        assert (await cbor.message()).payload == bytes.fromhex(
            "a6 00 01 01 63 707562 02 68 6e6577733a616c6c 07 68 686561646c696e65 08 a1 61 78 01 0a 19 03e8"
        )
        assert await plain.json() == {
            "type": "headline", "channel": "news:all", "data": {"x": 1}, "timestamp": "1970-01-01T00:00:01.000Z",
            "message_id": ANY, "priority": 5, "ttl": 3600
        }  # fmt: skip


async def test_messages_arrive_in_order_and_only_while_subscribed(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        await engine.bus.publish("news:all", b'"before"')
        await subscribe(client, "news:all")
        for number in range(500):
            await engine.bus.publish("news:all", b"%d" % number)
        assert [(await client.json())["d"] for _ in range(500)] == list(range(500))
        assert (await client.ask({"t": "unsub", "c": "news:all", "i": "u"}))["t"] == "ok"
        await engine.bus.publish("news:all", b'"after"')
        assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"


async def test_every_command_with_an_id_gets_one_answer_with_that_id(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        commands: list[dict[str, Any]] = [
            {"t": "auth", "i": "1"},
            {"t": "sub", "c": "a:1", "i": "2"},
            {"t": "sub", "c": "a:1", "i": "3"},
            {"t": "pub", "c": "b:1", "d": 1, "i": "4"},
            {"t": "ping", "i": "5", "d": {"echo": [1]}},
            {"t": "unsub", "c": "a:1", "i": "6"},
            {"t": "unsub", "c": "a:1", "i": "7"},
            {"t": "call", "c": "task:1", "i": "8"},
            {"t": "nonsense", "i": "9"},
        ]
        for command in commands:
            await client.say(command)
        answers = [await client.json() for _ in commands]
        answers.sort(key=lambda answer: str(answer["i"]))  # that of the call comes when it comes
        assert [(a["i"], a["t"]) for a in answers] == [
            ("1", "ok"), ("2", "ok"), ("3", "ok"), ("4", "ok"), ("5", "pong"), ("6", "ok"), ("7", "err"), ("8", "err"),
            ("9", "err"),
        ]  # fmt: skip
        assert answers[4]["d"] == {"echo": [1]}


async def test_a_client_hears_its_own_message_with_the_sender_it_really_is(engine: RunningEngine) -> None:  # S3-43
    async with connect(engine.host, engine.port) as client:
        await subscribe(client, "chat:1")
        await client.say({"t": "pub", "c": "chat:1", "i": "m1", "e": "said", "d": "hi", "u": "forged", "o": 99})
        heard = {message["t"]: message for message in [await client.json(), await client.json()]}  # in either order
        message = heard["pub"]
        assert heard["ok"]["d"] == {"id": message["i"]}
        assert (message["e"], message["d"]) == ("said", "hi")
        assert message["i"] != "m1"
        assert "u" not in message
        assert "o" not in message


async def test_a_publish_that_the_bus_cannot_take_is_an_err(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        engine.broker.available = False
        answer = await client.ask({"t": "pub", "c": "chat:1", "i": "m1", "d": "hi"})
        assert (answer["t"], answer["i"], answer["d"]["code"]) == ("err", "m1", "unavailable")


async def test_frames_sent_with_the_handshake_are_not_lost(engine: RunningEngine) -> None:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(upgrade_request() + encode_masked_frame(Opcode.TEXT, b'{"t":"ping","i":"early"}', MASK))
        await client.read_head()
        assert (await client.json())["t"] == "welcome"
        assert (await client.json())["i"] == "early"


async def test_a_producers_message_that_is_no_message_is_dropped_and_counted(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        await subscribe(client, "news:all")
        for bad in (b"", b"{", b"\xff", b'{"v":2}', b'{"v":1,"t":"sub"}', b'{"v":1,"d":"\xff"}', b"\xa1\x00\x02"):
            await engine.bus.publish("news:all", bad)
        await engine.bus.publish("news:all", b'"good"')
        assert (await client.json())["d"] == "good"
        assert engine.server.statistics().messages_bad == 7


async def test_a_ping_is_answered_and_a_close_is_returned(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        await client.say(b"life", Opcode.PING)
        assert await client.message() == (Opcode.PONG, b"life")
        await client.say(b"\x03\xe8bye", Opcode.CLOSE)
        assert await client.closed() == (1000, "")


async def test_a_silent_client_is_pinged_and_then_closed_with_4009() -> None:  # S1-49, S5-47
    settings = EngineSettings(heartbeat=0.1, idle_timeout=0.5, close_timeout=0.2)
    with trio.fail_after(10):
        async with running_engine(settings) as engine, connect(engine.host, engine.port, None) as client:
            assert (await client.json())["type"] == "ping"  # the plain dialect's own heartbeat
            assert (await client.closed())[0] == 4009
            assert engine.server.statistics().silent_closed == 1


async def test_by_default_a_client_is_pinged_every_30_seconds_and_may_be_silent_for_90(mock_clock: MockClock) -> None:
    # S2-32, S2-33
    async with running_engine() as engine, connect(engine.host, engine.port, None) as client:
        for second in range(1, 90):
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            if second % 30 == 0:
                assert (await client.json())["type"] == "ping"
        assert engine.server.statistics().silent_closed == 0
        mock_clock.jump(1)
        assert (await client.closed())[0] == 4009


async def test_every_byte_is_a_sign_of_life_also_those_of_a_message_that_takes_long() -> None:  # S2-34
    frame = encode_masked_frame(Opcode.TEXT, b'{"v":1,"t":"ping","i":"late"}', MASK)
    settings = EngineSettings(idle_timeout=0.6)
    with trio.fail_after(10):
        async with running_engine(settings) as engine, connect(engine.host, engine.port) as client:
            for start in range(0, len(frame), 8):
                await client.send(frame[start : start + 8])
                await trio.sleep(settings.idle_timeout / 3)  # all of them take longer than the timeout
            assert (await client.json())["i"] == "late"


async def test_a_subscription_over_the_limit_is_refused() -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(max_subscriptions=2)) as engine:
            async with connect(engine.host, engine.port) as client:
                await subscribe(client, "a:1")
                await subscribe(client, "a:2")
                answer = await client.ask({"t": "sub", "c": "a:3", "i": "s"})
                assert answer["d"]["code"] == "limit_exceeded"


async def test_a_full_worker_answers_503() -> None:  # S3-45
    with trio.fail_after(10):
        async with running_engine(EngineSettings(max_connections=1)) as engine, connect(engine.host, engine.port):
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request())
                status, headers, _ = await client.read_http()
                assert (status, headers["retry-after"]) == (503, "5")


async def test_a_slow_consumer_is_closed_with_4008_and_delays_nobody() -> None:  # S3-46, S4-31
    settings = EngineSettings(outbox_bytes=65_536, close_timeout=5)
    with trio.fail_after(20):
        async with running_engine(settings, send_buffer=8192) as engine:
            async with connect(engine.host, engine.port) as slow, connect(engine.host, engine.port) as fast:
                slow.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await subscribe(slow, "news:all")
                await subscribe(fast, "news:all")
                payload = b'"' + b"x" * 4000 + b'"'
                while engine.server.statistics().slow_closed == 0:
                    await engine.bus.publish("news:all", payload)
                    assert len((await fast.json())["d"]) == 4000
                assert await slow.closed() == (4008, "slow consumer")
                await engine.bus.publish("news:all", b'"on"')
                assert (await fast.json())["d"] == "on"


async def test_an_ephemeral_channel_may_drop_for_the_slow_and_tells_how_many() -> None:
    settings = EngineSettings(outbox_bytes=65_536)
    with trio.fail_after(20):
        async with running_engine(settings, send_buffer=8192) as engine, connect(engine.host, engine.port) as slow:
            slow.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await subscribe(slow, "cursor:1")
            sent = 0
            while engine.server.statistics().dropped < 10:
                await engine.bus.publish("cursor:1", b'"' + b"x" * 4000 + b'"')
                sent += 1
            received = 0
            while (message := await slow.json())["t"] == "pub":
                received += 1
            assert (message["t"], message["c"]) == ("gap", "cursor:1")
            assert message["d"] == {"reason": "slow", "count": sent - received}
            await engine.bus.publish("cursor:1", b'"on"')
            assert (await slow.json())["d"] == "on"


async def test_an_urgent_system_message_reaches_everybody_once(engine: RunningEngine) -> None:  # S2-58
    async with (
        connect(engine.host, engine.port) as subscriber,
        connect(engine.host, engine.port) as stranger,
        connect(engine.host, engine.port, None) as plain,
    ):
        answer = await subscriber.ask({"t": "sub", "c": "system:alerts", "i": "s"})
        await engine.bus.publish("system:alerts", b'{"v":1,"pr":7,"d":"for subscribers"}')
        await engine.bus.publish("system:alerts", b'{"v":1,"pr":8,"e":"maintenance","d":"for all"}')
        await engine.bus.publish("system:other", b'{"v":1,"pr":9,"d":"for all too"}')
        first, second, third = [await subscriber.json() for _ in range(3)]
        second, third = sorted((second, third), key=lambda message: message["c"])  # channels have no common order
        assert [first["d"], second["d"], third["d"]] == ["for subscribers", "for all", "for all too"]
        assert (first["p"], second["p"]) == (answer["o"], first["o"])
        assert [(await stranger.json())["d"] for _ in range(2)] == ["for all", "for all too"]
        assert [(await plain.json())["type"] for _ in range(2)] == ["maintenance", "message"]
        for client in (subscriber, stranger):
            assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"


async def test_only_the_backend_publishes_to_the_system_namespace(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        answer = await client.ask({"t": "pub", "c": "system:alerts", "i": "m", "pr": 9, "d": "fake"})
        assert answer["d"]["code"] == "permission_denied"


async def test_a_drain_says_when_to_come_back_and_spreads_the_closes_of_those_who_would_not_understand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_RETURNS_PER_SECOND", 10)
    with trio.fail_after(20):
        async with running_engine() as engine, AsyncExitStack() as stack:
            told = [await stack.enter_async_context(connect(engine.host, engine.port)) for _ in range(10)]
            others = [await stack.enter_async_context(connect(engine.host, engine.port, None)) for _ in range(10)]
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.server.drain, 4)
                delays = []
                for client in told:
                    message = await client.json()
                    assert (message["t"], set(message["d"])) == ("reconnect", {"delay", "reason"})
                    delays.append(message["d"]["delay"])
                    assert (await client.closed())[0] == 1012
                    await client.stream.aclose()
                assert 0 <= min(delays) < max(delays) <= 2000
                for client in others:
                    assert (await client.closed())[0] == 1012
                    await client.stream.aclose()
                assert trio.current_time() - started > 1.5  # twenty clients at ten a second, within half of the time


async def test_drain_tells_every_client_and_ends_serve() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.server.drain, 5)
                assert (await client.closed())[0] == 1012
                await client.say(b"\x03\xf4", Opcode.CLOSE)
                await client.stream.aclose()
            assert engine.server.statistics().connections == 0
