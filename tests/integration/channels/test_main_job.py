"""The main job: plain nats-py publishes, real workers fan out to hundreds of real WebSockets in all three dialects."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.envelope import decode_cbor
from fanline.protocol.websocket.frames import Opcode
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve

SUBSCRIBERS = 500
MESSAGES = 1000
DIALECTS = ("fanline.v1.json", "fanline.v1.cbor", None)

# trio-websocket 0.12 answers a ping even while it closes, which fails and leaks a Cancelled that ends our nursery.
NO_PINGS = {"FANLINE_ENGINE_HEARTBEAT": "3600", "FANLINE_ENGINE_IDLE_TIMEOUT": "7200"}

# As in the README: nats-py alone.
PRODUCER = """
import asyncio, nats, sys

async def main():
    client = await nats.connect(sys.argv[1])
    for number in range(int(sys.argv[2])):
        await client.publish("fanline.pub.news.all", b"%d" % number)
    await client.close()

asyncio.run(main())
"""


class Subscriber(Protocol):
    async def subscribe(self) -> None: ...
    async def receive(self) -> Any: ...


class RawSubscriber:
    """Speaks one dialect, with our own frames."""

    def __init__(self, client: RawClient, subprotocol: str | None) -> None:
        self._client = client
        self._subprotocol = subprotocol

    async def subscribe(self) -> None:
        if self._subprotocol == CBOR.subprotocol:
            await self._client.say(b"\xa3\x01csub\x02hnews:all\x06a1", Opcode.BINARY)
        elif self._subprotocol == JSON.subprotocol:
            await self._client.say({"t": "sub", "c": "news:all", "i": "1"})
        else:
            await self._client.say({"type": "subscribe", "channel": "news:all"})
        await self._payload()

    async def receive(self) -> Any:
        payload = await self._payload()
        if self._subprotocol == CBOR.subprotocol:
            return decode_cbor(payload).data
        message = msgspec.json.decode(payload)
        return message["d"] if self._subprotocol else message["data"]["value"]  # in which a plain client gets a number

    async def _payload(self) -> bytes:
        payload = (await self._client.message()).payload
        # The plain dialect's own heartbeat may come at any time.
        return await self._payload() if payload.startswith(b'{"type":"ping"') else payload


class IndependentSubscriber:
    """An independent implementation of WebSocket: trio-websocket."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def subscribe(self) -> None:
        await self._connection.get_message()
        await self._connection.send_message('{"t":"sub","c":"news:all","i":"1"}')
        assert '"ok"' in await self._connection.get_message()

    async def receive(self) -> Any:
        return msgspec.json.decode(await self._connection.get_message())["d"]


async def test_every_message_reaches_each_of_500_subscribers_once_and_in_order() -> None:
    received: list[list[Any]] = []
    with trio.fail_after(100):
        async with running_serve(workers=2, env=NO_PINGS) as serve:
            async with trio.open_nursery() as nursery:
                for number in range(SUBSCRIBERS):
                    await nursery.start(run_subscriber, serve, number, received)
                assert min(sockets_of(pid) for pid in serve.worker_pids()) > SUBSCRIBERS // 4
                command = [sys.executable, "-c", PRODUCER, serve.producer_url, str(MESSAGES)]
                await trio.run_process(command, stderr=subprocess.STDOUT)
            wrong = [numbers for numbers in received if numbers != list(range(MESSAGES))]
            assert [first_difference(numbers) for numbers in wrong] == []
            assert len(received) == SUBSCRIBERS
            assert "Traceback" not in serve.stderr_text()


def first_difference(numbers: list[Any]) -> tuple[int, list[Any]]:
    """Where a sequence departs from 0, 1, 2..., and what it has there."""
    place = next((place for place, number in enumerate(numbers) if number != place), len(numbers))
    return place, numbers[place : place + 3]


async def run_subscriber(
    serve: Serve, number: int, received: list[list[Any]], *, task_status: trio.TaskStatus[None]
) -> None:
    """Subscribe, report that it is done, and collect MESSAGES values."""

    async def collect(subscriber: Subscriber) -> None:
        await subscriber.subscribe()
        task_status.started()
        received.append([await subscriber.receive() for _ in range(MESSAGES)])

    if number % 20 == 0:
        async with open_websocket_url(serve.url, subprotocols=[JSON.subprotocol]) as connection:
            await collect(IndependentSubscriber(connection))
    else:
        subprotocol = DIALECTS[number % len(DIALECTS)]
        async with connect("127.0.0.1", serve.port, subprotocol) as client:
            await collect(RawSubscriber(client, subprotocol))


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(entry.readlink().name.startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())
