"""The inbox of the agent console, whose clients never acknowledge: two workers, real sockets, connections that die."""

import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from tests.engine.access.clients import token
from tests.integration.systems.console import ENVIRON
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.inbox import until_acknowledged
from tests.support.raw_client import RawClient, connect_raw
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve, kill, running_serve, wait_until
from tests.support.tasks.on_worker import worker_of
from tests.support.tasks.producer import NatsProducer

INBOX = "user:anna"
DAY_NS = 86_400 * 1_000_000_000
SECONDS = 100


class Scene(NamedTuple):
    serve: Serve
    producer: NatsProducer
    store: NatsClient


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=ENVIRON) as serve, trio.open_nursery() as nursery:
            producer = NatsProducer(serve, INBOX)
            await nursery.start(producer.run)
            async with connect_nats(serve.engine_url) as store:
                yield Scene(serve, producer, store)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def anna_on(serve: Serve, worker: int) -> AsyncIterator[RawClient]:
    """Anna, connected to one worker. As any library does, her client answers pings as it reads."""
    while True:
        async with connect_raw(*serve.where) as client:
            await client.upgrade(None, f"/ws?token={token('anna')}")
            if worker_of(serve, client) == worker:
                client.answers_pings = True
                assert (await client.json())["type"] == "connection_established"
                yield client
                return


async def hear(client: RawClient) -> dict[str, Any]:
    while (message := await client.json())["type"] == "ping":
        pass
    return message


async def texts(client: RawClient, count: int) -> list[str]:
    return [(await hear(client))["data"]["text"] for _ in range(count)]


async def read_all(client: RawClient) -> None:
    """Nothing more has been sent, and each ping is answered."""
    await client.say({"type": "ping", "timestamp": "last"})
    assert (await hear(client))["type"] == "pong"


async def test_an_old_client_gets_nothing_twice_over_ten_reconnects() -> None:
    # S2-09, S2-10, S2-11, S2-13
    async with scene() as at:
        workers = at.serve.worker_pids()
        for number in range(10):
            offline = [f"offline {number}{letter}" for letter in "ab"]
            for text in offline:
                await at.producer.say("note", text=text)
            async with anna_on(at.serve, workers[number % 2]) as anna:
                assert await texts(anna, 2) == offline
                await at.producer.say("note", text=f"live {number}")
                assert await texts(anna, 1) == [f"live {number}"]
                await read_all(anna)
                await until_acknowledged(at.store, INBOX, 3 * number + 3)
        for worker in workers:
            async with anna_on(at.serve, worker) as anna:
                await read_all(anna)


async def test_an_old_client_whose_connections_die_in_the_middle_of_a_delivery_loses_nothing() -> None:
    # S2-110
    chance, count = random.Random(new_seed()), 300
    known, deaths = -1, 0
    async with scene() as at, trio.open_nursery() as nursery:
        await fill(at.producer, range(count // 2))  # more than is sent at once
        nursery.start_soon(fill, at.producer, range(count // 2, count))
        while known < count - 1:
            worker = chance.choice(at.serve.worker_pids())
            async with anna_on(at.serve, worker) as anna:
                first = int((await texts(anna, 1))[0].split()[0])
                assert first <= known + 1, f"{known + 1} to {first - 1} are lost"
                known = max(known, await read_on(anna, first, min(count - 1, first + chance.randrange(150))))
                if known == count - 1:
                    await read_all(anna)
                    await until_acknowledged(at.store, INBOX, count)
                elif deaths == 2:
                    await kill(worker)
                    await wait_until(at.serve.is_whole)
                else:
                    reset(anna)
                deaths += 1
        async with anna_on(at.serve, at.serve.worker_pids()[0]) as anna:
            await read_all(anna)


async def fill(producer: NatsProducer, numbers: range) -> None:
    for number in numbers:
        await producer.say("note", text=f"{number} {'x' * 20_000}")


async def read_on(client: RawClient, first: int, last: int) -> int:
    """Read from the number after `first` to `last`, without a hole or a repeat."""
    for number in range(first + 1, last + 1):
        assert (await texts(client, 1))[0].split()[0] == str(number)
    return last


def reset(client: RawClient) -> None:
    """End the connection as a cut network does: what is on its way is gone."""
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_what_waits_for_a_user_waits_seven_days() -> None:  # S2-12
    async with scene() as at:
        assert (await at.store.api("STREAM.INFO", stream="FANLINE_user"))["config"]["max_age"] == 7 * DAY_NS
