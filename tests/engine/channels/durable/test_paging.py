"""Pages of history, on the bus in memory; test_store_contract.py has the reads that they are made of, on real NATS."""

import random
import tracemalloc

import msgspec
import pytest
import trio

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Page
from fanline.engine.channels.durable.paging import PAGE_BYTES, Paging
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.messages import MessageReader
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import HistoryAnswer
from fanline.protocol.messages.commands import MAX_PAGE, AskHistory
from fanline.protocol.messages.control_data import read
from tests.support.seeds import new_seed

CHANNEL = "doc:a"
NAMESPACES = Namespaces({"doc": Namespace(durable=True, history=5000)})


class Stage:
    def __init__(self) -> None:
        self.broker = MemoryBroker(NAMESPACES)
        self.bus = MemoryBus(self.broker)
        counters = Counters()
        self.reader = MessageReader(NAMESPACES, counters, Faults(counters), lambda: 0)
        self.paging = Paging(self.bus, StreamStates(self.bus), self.reader)

    async def store(self, channel: str, data: object) -> int:
        return (await self.bus.store(channel, msgspec.json.encode({"v": 1, "d": data}))).offset

    async def page(self, epoch: str | None = None, **asked: int) -> tuple[Envelope, HistoryAnswer]:
        reply = await self.paging.page(CHANNEL, AskHistory(**asked), epoch)
        return reply, read(HistoryAnswer, reply)


def offsets(answer: HistoryAnswer) -> list[int]:
    return [message.offset or 0 for message in answer.messages]


async def test_page_by_page_backwards_and_forwards_each_message_comes_once_in_order() -> None:
    chance = random.Random(new_seed())
    for _ in range(15):
        stage, stored = Stage(), list[int]()
        share = chance.choice((0.02, 0.3, 1.0))
        for _ in range(chance.choice((0, 1, 300, 2500))):
            if chance.random() < share:
                stored.append(await stage.store(CHANNEL, "x"))
            else:
                await stage.store("doc:other", "y")
        limit = chance.choice((1, 7, 100, MAX_PAGE)) if len(stored) < 500 else chance.choice((100, MAX_PAGE))
        _, answer = await stage.page(limit=limit)
        found = offsets(answer)
        while answer.more:
            assert len(answer.messages) == limit
            _, answer = await stage.page(limit=limit, before=found[0])
            found[:0] = offsets(answer)
        assert found == stored
        _, answer = await stage.page(limit=limit, after=0)
        found = offsets(answer)
        while answer.more:
            _, answer = await stage.page(limit=limit, after=found[-1])
            found += offsets(answer)
        assert found == stored


async def test_a_page_far_back_in_a_long_history_takes_a_few_looks() -> None:
    stage = Stage()
    stored = [await stage.store(CHANNEL, "x") for _ in range(5000)]
    stage.bus.reads = 0
    _, answer = await stage.page(limit=10, before=stored[2500])
    assert offsets(answer) == stored[2490:2500]
    assert stage.bus.reads < 20


async def test_a_page_ends_where_it_would_be_too_large_but_has_one_message() -> None:
    stage = Stage()
    stored = [await stage.store(CHANNEL, "x" * (PAGE_BYTES // 3)) for _ in range(4)]
    huge = await stage.store(CHANNEL, "x" * (2 * PAGE_BYTES))
    assert [(offsets(answer), answer.more) for _, answer in [await stage.page()]] == [([huge], True)]
    assert offsets((await stage.page(before=huge))[1]) == stored[2:]
    _, forwards = await stage.page(after=0)
    assert (offsets(forwards), forwards.more) == (stored[:2], True)


async def test_an_offset_of_another_epoch_is_refused() -> None:
    stage = Stage()
    for _ in range(3):
        last = await stage.store(CHANNEL, "x")
    reply, _ = await stage.page(before=last)
    await stage.page(before=last, epoch=reply.epoch)
    stage.broker.recreate("doc")
    with pytest.raises(MessageError, match="offset 3 is of another epoch of doc:a") as raised:
        await stage.page(before=last, epoch=reply.epoch)
    assert raised.value.code is ErrorCode.BAD_OFFSET


async def test_only_one_direction_can_be_asked_for() -> None:
    with pytest.raises(MessageError, match="give `before` or `after`, not both"):
        await Stage().page(before=5, after=2)


async def test_what_cannot_be_read_is_left_out_and_hides_nothing() -> None:
    stage = Stage()
    first = await stage.store(CHANNEL, 1)
    await stage.bus.store(CHANNEL, b"no message")
    last = await stage.store(CHANNEL, 2)
    assert offsets((await stage.page())[1]) == [first, last]
    reply, newest = await stage.page(limit=1)
    assert (offsets(newest), newest.more, reply.offset) == ([last], True, last)
    reply, older = await stage.page(limit=1, before=last)
    assert (offsets(older), older.more) == ([], True)
    _, oldest = await stage.page(limit=1, before=reply.offset or 0)
    assert (offsets(oldest), oldest.more) == ([first], False)


async def test_only_a_few_pages_are_on_their_way_at_a_time() -> None:
    stage, under_way, most = Stage(), 0, 0
    await stage.store(CHANNEL, 1)
    read_stored = stage.bus.read

    async def slow(*args: int | str) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.testing.wait_all_tasks_blocked()
        under_way -= 1
        return await read_stored(*args)  # type: ignore[arg-type]

    stage.bus.read = slow  # type: ignore[method-assign, assignment]
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(stage.page)
    assert most == 4


@pytest.mark.parametrize("limit", [1, 5])
async def test_a_page_is_whole_however_much_is_published_while_it_is_read(limit: int) -> None:
    stage, stored = Stage(), list[int]()
    for _ in range(20):
        stored.append(await stage.store(CHANNEL, "x"))
        for _ in range(10):
            await stage.store("doc:other", "y")
    read_stored = stage.bus.read

    async def read_while_more_is_stored(*args: int | str) -> Page:
        for _ in range(3):
            await stage.store(CHANNEL, "new")
        return await read_stored(*args)  # type: ignore[arg-type]

    stage.bus.read = read_while_more_is_stored  # type: ignore[method-assign, assignment]
    for end in range(20, 0, -limit):
        wanted = stored[end - limit : end]
        _, answer = await stage.page(limit=limit, before=stored[end - 1] + 1)
        assert (offsets(answer), answer.more) == (wanted, wanted[0] != stored[0])


async def test_while_a_page_of_large_messages_is_looked_for_little_more_than_the_page_is_held() -> None:
    stage = Stage()
    for _ in range(60):
        await stage.store(CHANNEL, "x" * (PAGE_BYTES // 2))
    read_stored = stage.bus.read

    async def read_copies(channel: str, start: int, most: int) -> Page:
        page = await read_stored(channel, start, min(most, 4))  # as nats-server cuts a page of 1 MiB
        more = page.more if most == 1 else len((await read_stored(channel, start)).messages) - len(page.messages)
        return Page([each._replace(payload=bytes(bytearray(each.payload))) for each in page.messages], more)

    stage.bus.read = read_copies  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    try:
        await stage.page(limit=MAX_PAGE)
        assert tracemalloc.get_traced_memory()[1] < 20 * PAGE_BYTES
    finally:
        tracemalloc.stop()
