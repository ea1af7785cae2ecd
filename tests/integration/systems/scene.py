"""What the stories of the systems have in common: clients on a worker of one's choice, and backends that publish."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.support.foreign.client import Foreign, Retry, Seen, foreign
from tests.support.nats.client import NatsClient
from tests.support.servers.serve import Serve, serve_environ
from tests.support.tasks.on_worker import worker_at

NEVER = Retry()


def url_of(serve: Serve, path: str) -> str:
    """`path`: with its query."""
    return serve.url.removesuffix("/ws") + path


async def come(client: Foreign, serve: Serve, path: str, worker: int | None = None, retry: Retry = NEVER) -> None:
    """Connect by a path, to the worker with this process id (None: to any), and be greeted."""
    while True:
        await client.open(url_of(serve, path), retry=retry)
        await client.saw("open")
        await client.heard("connection_established")
        if worker in (None, worker_at(serve, client.process.pid)):
            return
        await client.close()
        await until_closed(client)


async def until_closed(client: Foreign) -> int:
    """The close code. Until then others may leave, which the client is told."""
    while (report := await client.seen())["saw"] != "close":
        assert report["saw"] == "message", report
    return int(report["code"])


async def until_in(client: Foreign) -> None:
    """Until a client that comes back by itself has been greeted. What its route joins may take a moment longer: when
    it is answered, it hears everything.
    """
    while (await client.seen())["saw"] != "open":
        pass
    await client.heard("connection_established")


@asynccontextmanager
async def coming(
    kind: str, serve: Serve, path: str, worker: int | None = None, retry: Retry = NEVER
) -> AsyncIterator[Foreign]:
    """A client that has come, and hears what its route joins."""
    async with foreign(kind) as client:
        await come(client, serve, path, worker, retry)
        await client.send({"type": "ping", "timestamp": "joined"})
        while (await client.message()).get("timestamp") != "joined":
            pass  # that a connection to another worker has ended
        yield client


async def publish(backend: NatsClient, channel: str, event: str, data: Any = None, **envelope: Any) -> int:
    """As a backend does that has to know that its event is stored. Returns the offset."""
    payload = json.dumps({"v": 1, "e": event, "d": data, **envelope}).encode()
    reply = await backend.ask(f"fanline.pub.{channel.replace(':', '.')}", payload)
    assert "error" not in reply, reply
    return int(reply["seq"])


async def revoke(serve: Serve, user: str) -> None:
    """Take back the tokens of a user."""
    command = [sys.executable, "-P", "-m", "fanline", "revoke", "--user", user]
    await trio.run_process(command, env=serve_environ(serve.directory), capture_stdout=True)


async def kept_out(client: Foreign, retry: Retry) -> None:
    """Its token was taken back: it is closed with 1008, refused as often as it comes back, and gives up. A worker that
    has not heard of the revocation yet may let it in again, for less than a second.
    """
    told: list[Seen] = []
    while not told or told[-1]["saw"] != "gave_up":
        told.append(await client.seen())
    assert {report["code"] for report in told if report["saw"] == "close"} == {1008}
    tries = 2 * len(retry.delays)
    assert [report.get("status") for report in told[-tries - 1 : -1]] == [None, 401] * len(retry.delays)


async def caught_up(*clients: Foreign) -> None:
    """Each has heard everything that was sent to it before, and nothing that a test has not read."""
    for client in clients:
        await client.send({"type": "ping", "timestamp": "now"})
        await client.heard("pong")
