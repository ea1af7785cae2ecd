"""Plain clients with names, each of which has read what it was told when it came."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.engine.running import RunningEngine
from tests.support.raw_client import RawClient, connect_raw


class Person(RawClient):
    """A client that knows what it waits for."""

    notices = False
    """Whether it listens to who is online."""
    beats = False
    """Whether it listens to the server's pings, which may come at any time."""

    async def json(self) -> dict[str, Any]:
        message = await super().json()
        while self._passes_over(message["type"]):
            message = await super().json()
        return message

    def _passes_over(self, kind: str) -> bool:
        return (kind == "ping" and not self.beats) or (kind in ("user_online", "user_offline") and not self.notices)

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message, which has to be of this type."""
        message = await self.json()
        assert message["type"] == kind, message
        return message

    async def hears_nothing(self) -> None:
        """Whatever has been said to it by now, it has read."""
        assert (await self.ask({"type": "ping", "timestamp": "now"}))["type"] == "pong"


@asynccontextmanager
async def person(
    engine: RunningEngine, name: str | None = None, path: str = "/ws", **headers: str
) -> AsyncIterator[Person]:
    """A client that has come by a path, and has said who it is if it has a name."""
    async with connect_raw(engine.host, engine.port) as raw:
        client = Person(raw.stream)
        await client.upgrade(None, path, **headers)
        await client.hear("connection_established")
        if name is not None:
            await client.say({"type": "connect", "user_id": name.lower(), "username": name})
            client.connection = (await client.hear("connection_established"))["connection_id"]
        yield client


@asynccontextmanager
async def people(engine: RunningEngine, *names: str, path: str = "/ws") -> AsyncIterator[list[Person]]:
    """Several of them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(person(engine, name, path)) for name in names]
