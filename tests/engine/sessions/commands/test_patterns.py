"""`ns:*` over real sockets: who may have it, what comes, and what a slow viewer of a busy namespace is."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

import fanline
from fanline.engine.settings import EngineSettings
from fanline.protocol.envelope import Envelope, encode_json
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    with trio.fail_after(20):
        async with running_engine() as running:
            yield running


async def ask(client: RawClient, kind: str, channel: str, **fields: Any) -> dict[str, Any]:
    return await client.ask({"v": 1, "t": kind, "i": "1", "c": channel, **fields})


async def test_every_message_of_the_namespace_comes_once_with_its_channel_and_offset(engine: RunningEngine) -> None:
    async with (
        connect(engine.host, engine.port) as client,
        connect(engine.host, engine.port) as late,
        connect(engine.host, engine.port, None) as plain,
    ):
        await engine.bus.publish("project:1", b'"before"')
        assert await ask(client, "sub", "project:*") == {"v": 1, "t": "ok", "c": "project:*", "i": "1"}
        assert (await ask(client, "sub", "project:*"))["t"] == "ok"
        answer = await plain.ask({"type": "subscribe", "channel": "project:*"})
        assert (answer["type"], answer["channel"], answer["subscribed"]) == ("subscription_result", "project:*", True)
        for number, channel in enumerate(("project:1", "doc:1", "project:2.x", "project:1")):
            await engine.bus.publish(channel, b"%d" % number)
        messages = [await client.json() for _ in range(3)]
        assert [(each["c"], each["o"], each["d"]) for each in messages] == [
            ("project:1", 2, 0),
            ("project:2.x", 3, 2),
            ("project:1", 4, 3),
        ]
        assert not any("p" in each or "ep" in each for each in messages)
        assert [(await plain.json())["channel"] for _ in range(3)] == ["project:1", "project:2.x", "project:1"]
        assert (await ask(client, "unsub", "project:*"))["t"] == "ok"
        await ask(late, "sub", "project:*")
        await engine.bus.publish("project:3", b"1")
        assert (await late.json())["c"] == "project:3"
        assert (await ask(client, "ping", "project:3"))["t"] == "pong"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"t": "sub", "c": "user:*"}, "permission_denied"),
        ({"t": "sub", "c": "project:*", "o": 3}, "bad_message"),
        ({"t": "sub", "c": "project:*", "d": {"start": True}}, "bad_message"),
        ({"t": "sub", "c": "project:*", "d": {"last": 3}}, "bad_message"),
        ({"t": "sub", "c": "task:*", "d": {"snapshot": True}}, "bad_message"),
        ({"t": "sub", "c": "*"}, "bad_channel"),
        ({"t": "sub", "c": "project:a*"}, "bad_channel"),
        ({"t": "sub", "c": "project:*.a"}, "bad_channel"),
        ({"t": "sub", "c": "*:a"}, "bad_channel"),
        ({"t": "sub", "c": "project:a:*"}, "bad_channel"),
        ({"t": "sub", "c": "project:>"}, "bad_channel"),
        ({"t": "unsub", "c": "project:*"}, "not_subscribed"),
        ({"t": "pub", "c": "project:*", "d": 1}, "bad_channel"),
        ({"t": "call", "c": "task:*", "e": "status"}, "bad_channel"),
        ({"t": "ack", "c": "user:*", "o": 1}, "bad_channel"),
    ],
    ids=str,
)
async def test_what_a_pattern_is_not_for_is_refused(engine: RunningEngine, command: dict[str, Any], code: str) -> None:
    async with connect(engine.host, engine.port) as client:
        answer = await client.ask({"v": 1, "i": "1", **command})
        assert (answer["t"], answer["d"].get("code")) == ("err", code)
        assert (await ask(client, "sub", "project:1"))["t"] == "ok"


@pytest.mark.parametrize(
    ("grants", "answer"),
    [
        ({"project:*": ["sub"]}, "ok"),
        ({"*": ["sub"]}, "ok"),
        ({"project:7": ["sub"], "project:a*": ["sub"], "task:*": ["sub"]}, "err"),
        ({"project:*": ["pub", "history"]}, "err"),
    ],
)
async def test_a_pattern_needs_the_right_to_the_whole_namespace(grants: dict[str, Any], answer: str) -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect(engine.host, engine.port) as client:
            await client.ask({"v": 1, "t": "auth", "i": "a", "d": {"token": token(channels=grants)}})
            assert (await ask(client, "sub", "project:*"))["t"] == answer


async def test_with_a_new_token_a_pattern_that_it_does_not_cover_ends() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect(engine.host, engine.port) as client:
            for shown, expected in (({"project:*": ["sub"]}, "ok"), ({"project:7": ["sub"]}, "unsub")):
                await client.say({"v": 1, "t": "auth", "i": "a", "d": {"token": token(channels=shown)}})
                if expected == "ok":
                    assert (await client.json())["t"] == "ok"
                    assert (await ask(client, "sub", "project:*"))["t"] == "ok"
            ended = await client.json()
            assert (ended["t"], ended["c"]) == ("unsub", "project:*")


async def test_a_task_that_is_watched_beside_its_namespace_comes_once_and_folded(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client:
        await ask(client, "sub", "task:*")
        await ask(client, "sub", "task:1")
        for task in ("task:1", "task:2"):
            event = Envelope("pub", event="task_progress", data={"done": 1, "total": 2})
            await engine.bus.publish(task, encode_json(event))
        messages = {each["c"]: each for each in [await client.json() for _ in range(2)]}
        assert messages["task:2"]["d"] == {"done": 1, "total": 2}
        assert "p" not in messages["task:2"]
        assert messages["task:1"]["p"] == 0
        assert messages["task:1"]["d"] != messages["task:2"]["d"]


async def test_a_channel_that_is_joined_under_traffic_brings_each_message_once(engine: RunningEngine) -> None:
    """Before, during and after the join of the channel itself, with a history that takes several turns."""
    async with connect(engine.host, engine.port) as client, trio.open_nursery() as nursery:
        for number in range(300):
            await engine.bus.publish("project:1", encode_json(Envelope("pub", data=[number, "x" * 2000])))
        await ask(client, "sub", "project:*")
        published = 300

        async def publish() -> None:
            nonlocal published
            while published < 2000:
                await engine.bus.publish("project:1", encode_json(Envelope("pub", data=[published, ""])))
                published += 1

        nursery.start_soon(publish)
        await client.say({"v": 1, "t": "sub", "i": "1", "c": "project:1", "o": 0})
        offsets, answered = list[int](), None
        while not offsets or offsets[-1] < 2000:
            message = await client.json()
            if message["t"] == "pub":
                offsets.append(message["o"])
            elif message["t"] == "ok":
                answered = len(offsets)
    assert answered is not None
    assert offsets[answered:] == [*range(1, 2001)], "a hole or a repeat behind the answer"
    assert offsets[:answered] == [*range(301, 301 + answered)]


async def test_a_session_that_is_taken_up_has_its_pattern_again(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as first:
        session = (await first.ask({"v": 1, "t": "auth", "i": "a"}))["d"]["session"]
        await ask(first, "sub", "project:*")
        await trio.sleep(0.3)  # stored soon after
    async with connect(engine.host, engine.port) as second:
        await second.say({"v": 1, "t": "auth", "i": "a", "d": {"session": session}})
        assert (await second.json())["c"] == "project:*"
        assert (await second.json())["d"]["resumed"] is True
        await engine.bus.publish("project:1", b"1")
        assert (await second.json())["c"] == "project:1"


async def test_the_worker_asks_for_the_namespace_only_while_somebody_wants_it(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as one:
        statistics = engine.server.statistics
        await engine.bus.publish("news:1", b"1")
        assert statistics().messages_in == 0
        async with connect(engine.host, engine.port) as other:
            await ask(one, "sub", "news:*")
            await ask(other, "sub", "news:*")
        await engine.bus.publish("news:1", b"1")
        assert (await one.json())["d"] == 1
        assert statistics().messages_in == 1
        await ask(one, "unsub", "news:*")
        await engine.bus.publish("news:1", b"1")
        assert statistics().messages_in == 1


async def test_after_an_outage_of_the_bus_a_viewer_of_a_namespace_gets_a_gap(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port) as client, connect(engine.host, engine.port) as other:
        await ask(client, "sub", "project:*")
        await ask(other, "sub", "project:1")
        engine.bus.on_loss(0.0)
        gap = await client.json()
        assert (gap["t"], gap["c"], gap["d"]) == ("gap", "project:*", {"reason": "outage"})
        await engine.bus.publish("project:1", b"1")
        assert (await client.json())["d"] == 1
        assert (await other.json())["t"] == "pub"


async def test_a_slow_viewer_of_a_busy_namespace_is_closed_with_4008_and_delays_nobody() -> None:
    settings = EngineSettings(outbox_bytes=256 * 1024)
    with trio.fail_after(30):
        async with (
            running_engine(settings, send_buffer=8192) as engine,
            connect(engine.host, engine.port) as slow,
            connect(engine.host, engine.port) as quick,
            trio.open_nursery() as nursery,
        ):
            await ask(slow, "sub", "news:*")
            await ask(quick, "sub", "news:*")

            async def publish() -> None:
                for number in range(10_000):
                    await engine.bus.publish(f"news:{number % 100}", encode_json(Envelope("pub", data="x" * 200)))

            async def find_out() -> None:
                while engine.server.statistics().slow_closed == 0:
                    await trio.sleep(0.001)
                assert (await slow.closed())[0] == 4008

            nursery.start_soon(publish)
            nursery.start_soon(find_out)
            for _ in range(10_000):
                assert (await quick.json())["t"] == "pub"
        assert engine.server.statistics().slow_closed == 1


async def test_a_client_of_the_sdk_hears_a_namespace_and_keeps_no_position_in_it(engine: RunningEngine) -> None:
    async with fanline.Client(f"ws://{engine.host}:{engine.port}/ws") as client:
        async with (
            client.subscribe("project:*", "project:1", last=5, gaps=True) as everything,
            client.subscribe("project:2") as one,
        ):
            for number in range(1, 4):
                await client.publish(f"project:{number}", number)
            heard = [await anext(everything) for _ in range(3)]
            assert sorted(each.data for each in heard if isinstance(each, fanline.Message)) == [1, 2, 3]
            assert (await anext(one)).data == 2
            assert set(everything.positions) == {"project:1"}
            engine.bus.on_loss(0.0)
            assert await anext(everything) == fanline.Gap("project:*", "outage")
