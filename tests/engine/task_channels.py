"""A producer and a viewer of one task on an engine with the bus in memory."""

import itertools
from typing import Any

import msgspec

from fanline.engine.bus.interface import PING
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.protocol.tasks.states import ENGINE_EVENTS
from tests.support.raw_client import RawClient

CHANNEL = "task:build"


class Producer:
    """Publishes events, and answers calls on the `ctl` subject once it is attached."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.calls: list[dict[str, Any]] = []
        """What it was asked, oldest first."""
        self.answer: bytes = b'{"v":1,"t":"ok","d":{"done":true}}'
        self._bus = MemoryBus(broker)
        self._numbers = itertools.count()

    async def say(self, event: str, **data: Any) -> int:
        """Publish an event, as the engine if only that says it; its offset."""
        payload = msgspec.json.encode({"v": 1, "e": event, "d": data})
        name = f"{id(self)}-{next(self._numbers)}"
        return (await self._bus.store(CHANNEL, payload, name, signed=event in ENGINE_EVENTS)).offset

    def attach(self) -> None:
        self.broker.listeners[CHANNEL] = self._take

    def detach(self) -> None:
        del self.broker.listeners[CHANNEL]

    async def _take(self, payload: bytes) -> bytes:
        if payload == PING:
            return b""
        self.calls.append(msgspec.json.decode(payload))
        return self.answer


async def call(client: RawClient, verb: str, data: Any = None, request: str = "c") -> dict[str, Any]:
    """The answer to a call; messages of channels that come before it are passed over."""
    await client.say({"t": "call", "c": CHANNEL, "e": verb, "i": request, "d": data})
    while (reply := await client.json()).get("i") != request or reply["t"] not in ("ok", "err"):
        pass
    return reply


async def watch(client: RawClient, **wish: Any) -> dict[str, Any]:
    """Subscribe as viewers do; the snapshot message."""
    answer = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "d": {"snapshot": True, **wish}})
    assert (answer["t"], answer["d"]) == ("ok", {"recovered": True, "count": 1}), answer
    frame = await client.json()
    assert (frame["e"], frame["o"]) == ("task_snapshot", answer["o"])
    return frame
