"""Clients with a user name, and what they are told of each other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from fanline.engine.bus.memory import MemoryBroker
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.settings import EngineSettings
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw

RIGHTS = {"*": ["sub", "pub", "presence"]}
NAMESPACES = {"room": Namespace(presence=True), "dull": Namespace()}


@asynccontextmanager
async def running_cluster(workers: int = 2, **settings: Any) -> AsyncIterator[list[RunningEngine]]:
    """Workers of one cluster."""
    broker = MemoryBroker(Namespaces(NAMESPACES))
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_engine(EngineSettings(namespaces=NAMESPACES, **settings), broker=broker, access=token_access())
            )
            for _ in range(workers)
        ]


@asynccontextmanager
async def user_client(
    engine: RunningEngine, user: str | None, subprotocol: str | None = "fanline.v1.json", **claims: Any
) -> AsyncIterator[RawClient]:
    """A client of this user, who is shown in capital letters. None: one without a user name."""
    shown = None if user is None else user.upper()
    async with connect_raw(engine.host, engine.port) as client:
        text = token(user, **{"username": shown, "channels": RIGHTS, **claims})
        await client.upgrade(subprotocol, Authorization=f"Bearer {text}")
        await client.message()
        yield client


async def subscribe(client: RawClient, channel: str = "room:1", **data: Any) -> None:
    reply = await client.ask({"t": "sub", "c": channel, "i": "sub", **({"d": data} if data else {})})
    assert reply["t"] == "ok", reply


async def presence(client: RawClient, channel: str = "room:1") -> dict[str, Any]:
    """The answer to a query; notices that come before it are passed over."""
    reply = await client.ask({"t": "presence", "c": channel, "i": "query"})
    while reply.get("i") != "query":
        reply = await client.json()
    assert reply["t"] == "ok", reply
    data: dict[str, Any] = reply["d"]
    return data


async def names(client: RawClient, channel: str = "room:1") -> list[str]:
    return sorted(user["user_id"] for user in (await presence(client, channel))["users"])


async def wait_names(client: RawClient, expected: list[str], channel: str = "room:1") -> None:
    """Wait until these users are on a channel."""
    with trio.fail_after(10):
        while await names(client, channel) != expected:
            await trio.sleep(0.02)


async def notice(client: RawClient) -> tuple[str, str]:
    """The next notice: its type, and the user."""
    with trio.fail_after(10):
        told = await client.json()
    assert told["t"] in ("join", "leave"), told
    assert told["u"] == told["d"]["user_id"]
    return told["t"], told["u"]
