"""The promises of engine/bus.py, the same tests for the bus on NATS and for its twin in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio

from engine.bus import Bus, Place
from engine.memory_bus import MemoryBroker, MemoryBus
from engine.nats_bus import open_nats_bus
from engine.nats_options import NatsOptions
from tests.nats import running_nats

OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


class Inbox:
    """Collects what a bus delivers; lets a test wait for it."""

    def __init__(self, bus: Bus) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._news = trio.Event()
        bus.attach(self._deliver, lambda _: None)

    def _deliver(self, channel: str, payload: bytes, place: Place | None) -> None:
        self.messages.append((channel, payload))
        self._news.set()
        self._news = trio.Event()

    async def wait(self, count: int) -> list[tuple[str, bytes]]:
        while len(self.messages) < count:
            await self._news.wait()
        return self.messages


async def join(bus: Bus, channel: str) -> None:
    bus.join(channel)
    await bus.wait_joined(channel)


@pytest.fixture(params=["memory", "nats"])
async def open_bus(request: pytest.FixtureRequest) -> AsyncIterator[OpenBus]:
    """Opens buses that meet at one broker, as workers do."""
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(20))
        if request.param == "memory":
            broker = MemoryBroker()

            @asynccontextmanager
            async def open_bus() -> AsyncIterator[Bus]:
                yield MemoryBus(broker)
        else:
            server = await stack.enter_async_context(running_nats())

            @asynccontextmanager
            async def open_bus() -> AsyncIterator[Bus]:
                async with open_nats_bus(NatsOptions((server.url,)), "test") as bus:
                    yield bus

        yield open_bus


async def test_a_joined_channel_delivers_from_another_bus_and_from_its_own(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        here, there = Inbox(one), Inbox(other)
        await join(one, "task:a.b:c")
        await join(other, "task:a.b:c")
        await one.publish("task:a.b:c", b"\x00 any bytes \xff")
        assert await here.wait(1) == await there.wait(1) == [("task:a.b:c", b"\x00 any bytes \xff")]


async def test_one_publishers_messages_keep_their_order_and_come_once(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox = Inbox(other)
        Inbox(one)
        await join(other, "news:all")
        for number in range(1000):
            await one.publish("news:all", b"%d" % number)
        await one.publish("news:all", b"end")
        assert [payload for _, payload in await inbox.wait(1001)] == [*(b"%d" % n for n in range(1000)), b"end"]


async def test_only_joined_channels_are_delivered(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "news:a")
        for channel in ("news:b", "news:a.b", "news:aa", "old:a", "news:a"):
            await bus.publish(channel, b"x")
        assert await inbox.wait(1) == [("news:a", b"x")]


async def test_join_leave_join_is_a_join(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        bus.join("news:a")
        bus.leave("news:a")
        bus.join("news:a")
        bus.join("news:a")
        await bus.wait_joined("news:a")
        await bus.publish("news:a", b"once")
        await join(bus, "news:end")
        await bus.publish("news:end", b"end")
        assert await inbox.wait(2) == [("news:a", b"once"), ("news:end", b"end")]


async def test_after_leave_nothing_comes(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "news:a")
        bus.leave("news:a")
        bus.leave("news:a")
        await join(bus, "news:end")  # NATS keeps the order of UNSUB and SUB
        await bus.publish("news:a", b"late")
        await bus.publish("news:end", b"end")
        assert await inbox.wait(1) == [("news:end", b"end")]
