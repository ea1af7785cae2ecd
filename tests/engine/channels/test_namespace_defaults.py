"""The priority and the ttl of a namespace: those of messages that say none, whoever publishes them."""

from typing import Any

import msgspec
import pytest
import trio

from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.messages import MessageReader
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import DEFAULTS, Namespace, Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope, encode_json
from tests.engine.running import running_engine
from tests.support.raw_client import connect

MINE = {
    "news": Namespace(durable=True, priority=3, ttl=60),
    "alarm": Namespace(everywhere=True, priority=9),
    "task": msgspec.structs.replace(DEFAULTS["task"], ttl=60, priority=0),
}
NAMESPACES = Namespaces(MINE)


def read(channel: str, position: StreamPosition | None = None, **fields: Any) -> Envelope:
    counters = Counters()
    reader = MessageReader(NAMESPACES, counters, Faults(counters, lambda: 0.0), lambda: 1_000)
    payload = encode_json(Envelope("pub", **fields))
    found = reader.read(channel, NAMESPACES.of(channel), payload, position)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("channel", "said", "shown"),
    [
        ("news:1", {}, (3, 60)),
        ("news:1", {"priority": 0, "ttl": 1}, (0, 1)),
        ("news:1", {"priority": 9}, (9, 60)),
        ("project:1", {}, (None, None)),
        ("undeclared:1", {"ttl": 5}, (None, 5)),
        ("task:1", {"event": "task_started", "data": {}}, (0, None)),  # an event of a task never expires
    ],
)
def test_what_a_message_does_not_say_its_namespace_says(
    channel: str, said: dict[str, Any], shown: tuple[int | None, int | None]
) -> None:
    found = read(channel, **said)
    assert namespace_of(found.channel or "") == namespace_of(channel)
    assert (found.priority, found.ttl) == shown


async def test_clients_of_both_kinds_are_shown_it_and_what_has_expired_is_left_out_of_a_history() -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(namespaces=MINE)) as engine:
            await engine.bus.store("news:1", encode_json(Envelope("pub", event="old", data={}, time=1_000)))
            await engine.bus.store("news:1", encode_json(Envelope("pub", event="new", data={})))
            async with connect(engine.host, engine.port) as v1, connect(engine.host, engine.port, None) as plain:
                await v1.ask({"v": 1, "t": "sub", "c": "news:1", "i": "1", "d": {"last": 10}})
                heard = await v1.json()
                assert (heard["e"], heard["pr"], heard["ttl"]) == ("new", 3, 60)
                await plain.ask({"type": "subscribe", "channel": "news:1"})
                await engine.bus.store("news:1", encode_json(Envelope("pub", event="newer", data={})))
                shown = await plain.json()
                assert (shown["type"], shown["priority"], shown["ttl"]) == ("newer", 3, 60)


async def test_a_namespace_may_make_all_its_messages_urgent() -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(namespaces=MINE)) as engine:
            async with connect(engine.host, engine.port, None) as client:
                await client.ask({"type": "ping"})
                await engine.bus.publish("alarm:fire", encode_json(Envelope("pub", event="alarm", data={})))
                assert (await client.json())["priority"] == 9
