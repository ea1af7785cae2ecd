"""A fold is restored from its record and from what the stream has after it, up to an offset and no further."""

from collections.abc import Sequence

import msgspec
import pytest
import trio
from msgspec import Raw

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Epoch, Stored
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.restore import restore
from fanline.protocol.envelope import Envelope, decode_json
from fanline.protocol.nats.names import Bucket, channel_key
from fanline.protocol.tasks.snapshot import Snapshot

CHANNEL = "task:build"


def fold_of(*lines: str) -> TaskFold:
    """A fold of so many events, each a line of output."""
    fold = TaskFold(CHANNEL)
    for number, text in enumerate(lines, 1):
        data = Raw(msgspec.json.encode({"lines": [text]}))
        fold.take(Envelope("pub", CHANNEL, event="task_output", data=data), number)
    return fold


class Source:
    """A bus that holds the events of a task; an unreadable one is `b""`."""

    def __init__(self) -> None:
        self.bus = MemoryBus(MemoryBroker(Namespaces({"task": Namespace(durable=True, tasks=True, history=100_000)})))
        self.read_offsets: list[int] = []

    async def store(self, payloads: Sequence[bytes]) -> None:
        for number, payload in enumerate(payloads):
            await self.bus.store(CHANNEL, payload, f"m{number}")

    def read(self, stored: Stored) -> Envelope | None:
        self.read_offsets.append(stored.position.offset)
        return decode_json(stored.payload) if stored.payload else None

    async def restore(self, fold: TaskFold, until: int) -> int:
        self.read_offsets.clear()
        return await restore(self.bus, self.read, fold, Epoch("e"), until)


def line(text: str) -> bytes:
    return msgspec.json.encode({"v": 1, "t": "pub", "e": "task_output", "d": {"lines": [text]}})


async def test_a_fold_is_restored_from_the_stream_up_to_an_offset() -> None:
    source, fold = Source(), TaskFold(CHANNEL)
    await source.store([line("1"), b"", line("3"), line("4")])
    assert await source.restore(fold, 3) == 3
    assert (fold.offset, fold.snapshot.lines) == (3, 2)
    reads = source.bus.reads
    assert await source.restore(fold, 3) == 3
    assert (source.read_offsets, source.bus.reads) == ([], reads)
    for read in ([4], []):  # the second time the stream has nothing more
        assert await source.restore(fold, 9) == 9
        assert (source.read_offsets, fold.offset, fold.snapshot.lines) == (read, 4, 3)


async def test_an_unreadable_message_at_the_end_is_folded_in_as_well() -> None:
    source, fold = Source(), TaskFold(CHANNEL)
    await source.store([line("1"), b""])
    await source.restore(fold, 2)
    assert (fold.offset, source.bus.reads) == (2, 1)


async def test_a_history_of_many_pages_is_restored_to_its_end() -> None:
    source, fold = Source(), TaskFold(CHANNEL)
    await source.store([line(str(number)) for number in range(2500)])
    with trio.fail_after(20):
        assert await source.restore(fold, 2500) == 2500
    assert (fold.snapshot.lines, source.read_offsets) == (2500, list(range(1, 2501)))


@pytest.mark.parametrize(("until", "reached", "read"), [(4, 4, [3, 4]), (2, 2, []), (1, 2, [])])
async def test_a_record_spares_the_messages_before_it(until: int, reached: int, read: list[int]) -> None:
    source, fold = Source(), TaskFold(CHANNEL)
    await source.store([line(str(number)) for number in range(5)])
    record = fold_of("0", "1").record(Epoch("e"))
    await source.bus.kv_put(Bucket.TASKS, channel_key(CHANNEL), record, 60)
    assert await source.restore(fold, until) == reached
    assert (source.read_offsets[: len(read)], fold.snapshot.lines) == (read, max(2, until))


async def test_a_deleted_record_is_none() -> None:
    source, fold = Source(), TaskFold(CHANNEL)
    await source.bus.kv_put(Bucket.TASKS, channel_key(CHANNEL), b"", 60)
    assert await source.restore(fold, 0) == 0
    assert fold.snapshot == Snapshot()
