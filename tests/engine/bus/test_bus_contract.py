"""The promises of engine/bus/interface.py, the same tests for the bus on NATS and for its twin in memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple, Protocol

import pytest
import trio

from fanline.engine.bus.interface import (
    Bus,
    BusError,
    ConflictError,
    NoListenerError,
    Stored,
    StreamPosition,
    TooLargeError,
)
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.nats.bus import open_nats_bus
from fanline.engine.bus.nats.jetstream import READ_BATCH
from fanline.engine.bus.nats.options import NatsOptions
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket
from fanline.protocol.nats.subjects import Direction, from_subject, to_subject
from tests.support.nats_client import NatsClient, connect_nats
from tests.support.nats_server import running_nats

NAMESPACES = Namespaces({"short": Namespace(durable=True, history=3)})
OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


class Inbox:
    """Collects what a bus delivers; lets a test wait for it."""

    def __init__(self, bus: Bus) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.places: list[StreamPosition | None] = []
        self._news = trio.Event()
        bus.attach(self._deliver, lambda _: None)

    def _deliver(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        self.messages.append((channel, payload))
        self.places.append(position)
        self._news.set()
        self._news = trio.Event()

    async def wait(self, count: int) -> list[tuple[str, bytes]]:
        while len(self.messages) < count:
            await self._news.wait()
        return self.messages


async def join(bus: Bus, channel: str) -> None:
    bus.join(channel)
    await bus.wait_joined(channel)


class Producers(Protocol):
    """The other side of tasks: who listens on `ctl` subjects, and says that it lives."""

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        """Give one answer after the other to the calls of a channel; None: leave a call without."""
        ...

    async def beat(self, subject: str) -> None: ...


class MemoryProducers:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        rest = iter(answers)

        async def listener(payload: bytes) -> bytes:
            answer = next(rest)
            if answer is None:
                await trio.sleep_forever()
                raise AssertionError
            return answer + payload

        self._broker.listeners[channel] = listener

    async def beat(self, subject: str) -> None:
        with suppress(MessageError):
            self._broker.beat(from_subject(subject))


class NatsProducers(NatsClient):
    _nursery: trio.Nursery

    async def listen(self, channel: str, answers: Sequence[bytes | None]) -> None:
        await self._stream.send_all(f"SUB {to_subject(channel, Direction.CTL)} 2\r\n".encode())
        await self.flush()
        self._nursery.start_soon(self._answer, answers)

    async def _answer(self, answers: Sequence[bytes | None]) -> None:
        rest = iter(answers)
        while True:
            *_, reply, size = (await self._line()).split()
            payload = await self._exactly(int(size) + 2)
            if payload != b'{"v":1,"t":"ping"}\r\n' and (answer := next(rest)) is not None:
                await self.publish((reply.decode(), answer + payload[:-2]))

    async def beat(self, subject: str) -> None:
        await self.publish((subject, b""))


@asynccontextmanager
async def _nats_producers(url: str) -> AsyncIterator[NatsProducers]:
    async with connect_nats(url) as client, trio.open_nursery() as nursery:
        producers = NatsProducers(client._stream)
        producers._nursery = nursery
        yield producers
        nursery.cancel_scope.cancel()


class Cluster(NamedTuple):
    open_bus: OpenBus
    """Opens buses that meet at one broker, as workers do."""
    producers: Producers


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.process)])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(20))
        if request.param == "memory":
            broker = MemoryBroker(NAMESPACES)

            @asynccontextmanager
            async def open_bus() -> AsyncIterator[Bus]:
                yield MemoryBus(broker)

            yield Cluster(open_bus, MemoryProducers(broker))
        else:
            server = await stack.enter_async_context(running_nats())

            @asynccontextmanager
            async def open_bus() -> AsyncIterator[Bus]:
                async with open_nats_bus(NatsOptions((server.url,)), "test", NAMESPACES) as bus:
                    yield bus

            yield Cluster(open_bus, await stack.enter_async_context(_nats_producers(server.url)))


@pytest.fixture
def open_bus(cluster: Cluster) -> OpenBus:
    return cluster.open_bus


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


# --- durable channels --------------------------------------------------------------------------------------------


async def read_all(bus: Bus, channel: str, start: int = 1) -> list[Stored]:
    """Page by page; each page says how many messages come after it."""
    found: list[Stored] = []
    while True:
        page = await bus.read(channel, start)
        found += page.messages
        if not page.more:
            return found
        start = found[-1].position.offset + 1
        assert page.more == len((await bus.read(channel, start)).messages) + (await bus.read(channel, start)).more


async def test_what_is_stored_comes_with_its_place_and_is_read_with_the_same(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox = Inbox(other)
        await join(other, "task:a")
        offsets = [await one.store(channel, b"x", channel + str(n)) for n in (1, 2) for channel in ("task:a", "task:b")]
        assert offsets == [1, 2, 3, 4]
        assert await inbox.wait(2) == [("task:a", b"x")] * 2
        heard = [position for position in inbox.places if position is not None]
        assert [(position.offset, position.previous) for position in heard] == [(1, 0), (3, 1)]
        found = (await other.read("task:a", 1)).messages
        assert [(stored.channel, stored.payload) for stored in found] == [("task:a", b"x")] * 2
        assert [(stored.position.offset, stored.position.time) for stored in found] == [
            (p.offset, p.time) for p in heard
        ]


async def test_a_repeated_id_is_stored_once_and_answered_with_the_first_offset(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        assert await one.store("task:a", b"first", "id") == 1
        assert await one.store("task:a", b"2nd", "other") == 2
        assert await other.store("task:a", b"again", "id") == 1
        assert [stored.payload for stored in await read_all(one, "task:a")] == [b"first", b"2nd"]
        assert (await one.stream_state("task:a")).last == 2


async def test_a_producer_that_only_publishes_is_stored_too(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "task:a")
        await bus.publish("task:a", b"plain")
        await inbox.wait(1)
        assert [stored.payload for stored in await read_all(bus, "task:a")] == [b"plain"]


async def test_more_than_a_page_is_read_in_order_and_without_the_neighbours(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.store("task:neighbour", b"n", "n1")
        for number in range(READ_BATCH + 100):
            await bus.store("task:a", b"%d" % number, str(number))
        await bus.store("task:neighbour", b"n", "n2")
        found = await read_all(bus, "task:a")
        assert [stored.payload for stored in found] == [b"%d" % number for number in range(READ_BATCH + 100)]
        assert await read_all(bus, "task:a", found[-2].position.offset) == await read_all(
            bus, "task:a", found[-1].position.offset - 1
        )
        page = await bus.read("task:a", found[-1].position.offset + 1)
        assert page == ([], 0)


async def test_last_offsets_name_those_that_have_messages(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert await bus.last_offsets(["task:none"]) == {}
        for channel in ("task:a", "task:b", "task:a", "task:a.b"):
            await bus.store(channel, b"x", channel + str(await bus.stream_state(channel)))
        channels = ["task:a", "task:b", "task:none", *(f"task:none{number}" for number in range(900))]
        assert await bus.last_offsets(channels) == {"task:a": 3, "task:b": 2}


async def test_the_state_of_a_stream_tells_its_bounds_and_its_life(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        empty = await bus.stream_state("task:a")
        assert (empty.first, empty.last, empty.first_time, empty.size) == (1, 0, float("inf"), 0)
        await bus.store("task:a", b"x", "1")
        await bus.store("task:b", b"x", "2")
        state = await bus.stream_state("task:b")
        assert (state.epoch, state.first, state.last) == (empty.epoch, 1, 2)
        assert state.size > 0
        assert state.first_time < float("inf")
        assert (await bus.stream_state("doc:a")).epoch != state.epoch


async def test_a_channel_keeps_its_newest_and_its_neighbours_keep_theirs(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "short:a")
        await bus.store("short:b", b"x", "b")
        for number in range(5):
            await bus.store("short:a", b"%d" % number, f"a{number}")
        assert [stored.payload for stored in await read_all(bus, "short:a")] == [b"2", b"3", b"4"]
        assert len(await read_all(bus, "short:b")) == 1
        await inbox.wait(5)
        # The length leaves the last ones, so the place of each tells its true predecessor.
        assert [(position.offset, position.previous) for position in inbox.places if position] == [
            (2, 0), (3, 2), (4, 3), (5, 4), (6, 5)
        ]  # fmt: skip


async def test_what_is_too_large_is_refused_and_harms_nobody(open_bus: OpenBus) -> None:
    # The server counts headers as well, and ends the connection of who sends too much.
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "task:a")
        for size in (1024 * 1024 + 1, 10_000_000):
            with pytest.raises(BusError, match=r"\d bytes"):
                await bus.store("task:a", b"x" * size, "big")
            with pytest.raises(BusError, match=r"\d bytes"):
                await bus.publish("news:a", b"x" * size)
        await bus.store("task:a", b"x" * (1024 * 1024 - 200), "large")
        assert await bus.store("task:a", b"small", "small") == 2
        assert [len(payload) for _, payload in await inbox.wait(2)] == [1024 * 1024 - 200, 5]


async def test_pages_of_large_messages_are_shorter_and_none_is_left_out(open_bus: OpenBus) -> None:
    # JetStream cuts a batch by its bytes too; taken for the end, everything behind the cut would be lost.
    async with open_bus() as bus:
        for number in range(30):
            await bus.store("task:a" if number < 15 else f"task:{number}", b"x" * 1_000_000, str(number))
        assert [stored.position.offset for stored in await read_all(bus, "task:a")] == list(range(1, 16))
        channels = [f"task:{number}" for number in range(15, 30)]
        assert await bus.last_offsets(channels) == dict(zip(channels, range(16, 31), strict=True))


async def test_a_namespace_is_read_in_order_across_its_channels_and_without_other_namespaces(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.store("doc:a", b"x", "other")
        channels = [f"task:{number % 7}.x" for number in range(READ_BATCH + 100)]
        for number, channel in enumerate(channels):
            await bus.store(channel, b"%d" % number, str(number))
        first = await bus.read_namespace("task", 1)
        rest = await bus.read_namespace("task", first.messages[-1].position.offset + 1)
        assert (len(first.messages), first.more, rest.more) == (READ_BATCH, 100, 0)
        found = first.messages + rest.messages
        assert [(stored.channel, stored.payload) for stored in found] == [
            (channel, b"%d" % number) for number, channel in enumerate(channels)
        ]
        assert await bus.read_namespace("task", found[-1].position.offset + 1) == ([], 0)


# --- buckets ------------------------------------------------------------------------------------------------------


async def test_a_key_is_put_only_on_the_revision_it_has(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        await one.kv_update(Bucket.LEASES, "keeper", b"1", 0)
        with pytest.raises(ConflictError):
            await other.kv_update(Bucket.LEASES, "keeper", b"2", 0)
        note = await other.kv_get(Bucket.LEASES, "keeper")
        assert note is not None
        await other.kv_update(Bucket.LEASES, "keeper", b"2", note.revision)
        with pytest.raises(ConflictError):
            await one.kv_update(Bucket.LEASES, "keeper", b"3", note.revision)
        assert await one.kv_entries(Bucket.LEASES) == {"keeper": b"2"}


async def test_notes_are_all_keys_of_a_bucket_but_the_emptied_ones(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert await bus.kv_entries(Bucket.RUNNING) == {}
        await bus.kv_put(Bucket.TASKS, "task.other", b"x", 60)
        for number in range(READ_BATCH + 10):
            await bus.kv_put(Bucket.RUNNING, f"task.a.{number}", b"%d" % number, 60)
        await bus.kv_put(Bucket.RUNNING, "task.a.5", b"", 60)
        await bus.kv_put(Bucket.RUNNING, "task.a.6", b"new", 60)
        wanted = {f"task.a.{number}": b"%d" % number for number in range(READ_BATCH + 10)} | {"task.a.6": b"new"}
        del wanted["task.a.5"]
        assert await bus.kv_entries(Bucket.RUNNING) == wanted
        note = await bus.kv_get(Bucket.RUNNING, "task.a.6")
        assert note is not None
        assert note.value == b"new"


async def test_what_was_set_is_forgotten_after_its_time(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.kv_put(Bucket.TASKS, "task.long", b"x", 60)
        await bus.kv_put(Bucket.TASKS, "task.short", b"x", 0.5)
        assert set(await bus.kv_entries(Bucket.TASKS)) == {"task.long", "task.short"}
        while await bus.kv_get(Bucket.TASKS, "task.short") is not None:
            await trio.sleep(0.05)
        assert await bus.kv_entries(Bucket.TASKS) == {"task.long": b"x"}


async def test_a_value_that_is_too_large_is_refused(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        with pytest.raises(TooLargeError, match=r"\d bytes"):
            await bus.kv_put(Bucket.TASKS, "task.a", b"x" * (1024 * 1024 + 1), 60)


# --- producers of tasks -------------------------------------------------------------------------------------------


async def test_a_call_is_answered_by_the_producer_that_listens(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a.b", [b"1 ", b"2 "])
        assert await bus.call("task:a.b", b"cancel", 5) == b"1 cancel"
        assert await bus.call("task:a.b", b"input", 5) == b"2 input"


async def test_a_call_without_a_producer_fails_at_once(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:43", [])
        with pytest.raises(NoListenerError, match="no producer is attached to task:42"):
            await bus.call("task:42", b"cancel", 3600)


async def test_a_producer_that_does_not_answer_is_waited_for_no_longer_than_said(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a", [None, b"late "])
        with pytest.raises(BusError, match=r"task:a did not answer within 0\.05 s") as caught:
            await bus.call("task:a", b"cancel", 0.05)
        assert not isinstance(caught.value, NoListenerError)
        assert await bus.call("task:a", b"again", 5) == b"late again"


async def test_it_is_known_whether_a_producer_listens_without_its_answer(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        assert not await bus.has_listener("task:a")
        await cluster.producers.listen("task:a", [b"only calls are answered "])
        for _ in range(20):
            assert await bus.has_listener("task:a")
            assert not await bus.has_listener("task:b")
        assert await bus.call("task:a", b"x", 5) == b"only calls are answered x"


async def test_beats_are_heard_while_they_are_wanted(cluster: Cluster) -> None:
    heard: list[str] = []
    news = trio.Event()

    def take(channel: str) -> None:
        nonlocal news
        heard.append(channel)
        news.set()
        news = trio.Event()

    async with cluster.open_bus() as bus, cluster.open_bus() as other:
        other.hear_beats(lambda _: heard.append("other"))
        other.hear_beats(None)
        bus.hear_beats(take)
        bus.hear_beats(take)
        while not heard:  # "soon" has no end that could be waited for
            await cluster.producers.beat("fanline.beat.task.first")
            await trio.sleep(0.01)
        for subject in ("fanline.beat.task", "fanline.beat.TASK.a", "fanline.beat.task.a.b"):
            await cluster.producers.beat(subject)
        while heard[-1] != "task:a.b":
            await news.wait()
        assert set(heard) == {"task:first", "task:a.b"}
        bus.hear_beats(None)
        count = len(heard)
        await cluster.producers.beat("fanline.beat.task.late")
        Inbox(bus)
        await join(bus, "news:a")  # a round trip: what had been on its way is here
        assert len(heard) == count
