"""Several workers' buses that meet at one broker, and the producers there: in memory, or on a real nats-server."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import NamedTuple, Protocol

import pytest
import trio

from fanline.engine.bus.interface import PING, Bus, OnLoss
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.stored import StreamPosition
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import Login
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.subjects import Direction, from_subject, to_subject
from tests.support.nats.client import NatsClient
from tests.support.nats.server import running_nats

NAMESPACES = Namespaces({"short": Namespace(durable=True, history=3)})
OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


class Inbox:
    """Collects what a bus delivers, and lets a test wait for it."""

    def __init__(self, bus: Bus, on_loss: OnLoss = lambda _: None) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.positions: list[StreamPosition | None] = []
        self.overheard: list[tuple[str, bytes, int | None]] = []
        """Channel, payload and offset of what came because a whole namespace was joined."""
        self._arrival = trio.Event()
        bus.attach(self._deliver, on_loss, overhear=self._overhear)

    def _deliver(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        self.messages.append((channel, payload))
        self.positions.append(position)
        self._wake()

    def _overhear(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        self.overheard.append((channel, payload, None if position is None else position.offset))
        self._wake()

    def _wake(self) -> None:
        self._arrival.set()
        self._arrival = trio.Event()

    async def wait(self, count: int) -> list[tuple[str, bytes]]:
        """All messages so far, once there are `count`."""
        while len(self.messages) < count:
            await self._arrival.wait()
        return self.messages

    async def wait_overheard(self, count: int) -> list[tuple[str, bytes, int | None]]:
        """All that was overheard so far, once it is `count` messages."""
        while len(self.overheard) < count:
            await self._arrival.wait()
        return self.overheard


async def join(bus: Bus, channel: str) -> None:
    bus.join(channel)
    await bus.wait_joined(channel)


class Producers(Protocol):
    """The other side of tasks: it listens on `ctl` subjects and sends beats."""

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        """Answer the calls of a channel, each with the next of `answers` and the call's payload; None: no answer."""
        ...

    async def beat(self, subject: str) -> None: ...


class MemoryProducers:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        remaining = iter(answers)

        async def listener(payload: bytes) -> bytes:
            answer = next(remaining)
            if answer is None:
                await trio.sleep_forever()
                raise AssertionError
            return answer + payload

        self._broker.listeners[channel] = listener

    async def beat(self, subject: str) -> None:
        with suppress(MessageError):
            self._broker.beat(from_subject(subject))


class NatsProducers(NatsClient):
    def __init__(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        super().__init__(stream)
        self.called = trio.Event()
        self._nursery = nursery

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        await self._stream.send_all(f"SUB {to_subject(channel, Direction.CTL)} 2\r\n".encode())
        await self.flush()
        self._nursery.start_soon(self._answer, answers)

    async def _answer(self, answers: Sequence[bytes | None]) -> None:
        remaining = iter(answers)
        while True:
            *_, reply, size = (await self._line()).split()
            payload = await self._exactly(int(size) + 2)
            if payload[:-2] != PING:
                self.called.set()
            if (answer := next(remaining)) is not None:
                await self.publish((reply.decode(), answer + payload[:-2]))

    async def beat(self, subject: str) -> None:
        await self.publish((subject, b""))


class Cluster(NamedTuple):
    open_bus: OpenBus
    """Opens one worker's bus."""
    producers: Producers


@asynccontextmanager
async def memory_cluster() -> AsyncIterator[Cluster]:
    broker = MemoryBroker(NAMESPACES)

    @asynccontextmanager
    async def open_bus() -> AsyncIterator[Bus]:
        yield MemoryBus(broker)

    yield Cluster(open_bus, MemoryProducers(broker))


@asynccontextmanager
async def nats_cluster() -> AsyncIterator[Cluster]:
    async with running_nats() as server, nats_producers(server.url) as producers:

        @asynccontextmanager
        async def open_bus() -> AsyncIterator[Bus]:
            async with open_nats_bus(NatsOptions((server.url,)), "test", NAMESPACES) as bus:
                yield bus

        yield Cluster(open_bus, producers)


@asynccontextmanager
async def nats_producers(url: str) -> AsyncIterator[NatsProducers]:
    address = parse_url(url)
    async with await trio.open_tcp_stream(address.host, address.port) as stream, trio.open_nursery() as nursery:
        producers = NatsProducers(stream, nursery)
        await producers.greet(Login())
        yield producers
        nursery.cancel_scope.cancel()


CLUSTERS = (
    pytest.param(memory_cluster, id="memory"),
    pytest.param(nats_cluster, id="nats", marks=pytest.mark.process),
)
