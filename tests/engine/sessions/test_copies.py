"""Copies of an event on several channels, over real sockets: each viewer gets it once."""

import trio

from fanline.protocol.copies import copies_of
from fanline.protocol.envelope import Envelope, encode_json
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect

CHANNELS = ("task:42", "user:5", "project:7")


async def subscribe(client: RawClient, *channels: str) -> None:
    for channel in channels:
        assert (await client.ask({"v": 1, "t": "sub", "i": "s", "c": channel}))["t"] == "ok"


async def accept(engine: RunningEngine, number: int) -> None:
    """What whoever accepts an event does with it."""
    event = Envelope("pub", id=f"m-{number}", event="note", data=number, extra={"task_id": "42"})
    for copy in copies_of(event, CHANNELS):
        await engine.bus.publish(copy.channel or "", encode_json(copy))


async def test_a_viewer_of_several_channels_gets_each_event_once_with_a_whole_chain_on_each() -> None:
    with trio.fail_after(20):
        async with (
            running_engine() as engine,
            connect(engine.host, engine.port) as of_all,
            connect(engine.host, engine.port) as of_project,
            connect(engine.host, engine.port, None) as plain,
        ):
            await subscribe(of_all, *CHANNELS)
            await subscribe(of_project, "project:7")
            for channel in ("user:5", "project:7"):
                await plain.ask({"type": "subscribe", "channel": channel})
            for number in range(20):
                await accept(engine, number)
            await engine.bus.publish("project:7", b'"last"')

            everything = [await of_all.json() for _ in range(21)]
            assert [each["d"] for each in everything] == [*range(20), "last"]
            assert {each["c"] for each in everything[:20]} == {"task:42"}
            assert everything[0]["x"] == {"task_id": "42"}
            assert (everything[20]["c"], everything[20]["p"]) == ("project:7", 0)

            project = [await of_project.json() for _ in range(21)]
            assert [(each["d"], each["p"]) for each in project] == [*((n, n) for n in range(20)), ("last", 20)]
            assert all(each.get("x") in ({"task_id": "42"}, None) for each in project)

            shown = [await plain.json() for _ in range(21)]
            assert [each["data"]["value"] for each in shown] == [*range(20), "last"]
            assert {each["channel"] for each in shown[:20]} == {"user:5"}
            assert {each.get("task_id") for each in shown[:20]} == {"42"}
            assert not any("via" in each for each in shown)


async def test_a_history_holds_every_copy() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            await subscribe(client, "task:42")
            await accept(engine, 1)
            assert (await client.json())["c"] == "task:42"
            await client.say({"v": 1, "t": "sub", "i": "s", "c": "project:7", "d": {"start": True}})
            answer, message = await client.json(), await client.json()
            assert (answer["d"]["count"], message["c"], message["d"], message["i"]) == (1, "project:7", 1, "m-1")
            assert message["x"] == {"task_id": "42"}
