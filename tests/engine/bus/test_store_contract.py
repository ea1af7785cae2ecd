"""The promises of engine/bus/interface.py about streams and buckets, for both implementations alike."""

from datetime import datetime

import pytest
import trio

from fanline.engine.bus.errors import BusError, ConflictError, TooLargeError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import READ_BATCH, Stored
from fanline.protocol.nats.names import Bucket
from tests.engine.bus.cluster import Inbox, OpenBus, join


async def read_all(bus: Bus, channel: str, start: int = 1) -> list[Stored]:
    """Read page by page, and check that each page says how many messages come after it."""
    found: list[Stored] = []
    while True:
        page = await bus.read(channel, start)
        found += page.messages
        if not page.more:
            return found
        start = found[-1].position.offset + 1
        assert page.more == len((await bus.read(channel, start)).messages) + (await bus.read(channel, start)).more


class Changes:
    """Collects what a watcher hears of a bucket, and what it reads once it has heard of a change."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.interruptions = 0
        self._arrival = trio.Event()

    def changed(self, key: str, value: bytes) -> None:
        self.heard.append((key, value))
        self._arrival.set()
        self._arrival = trio.Event()

    def interrupted(self) -> None:
        self.interruptions += 1

    async def wait(self, count: int) -> list[tuple[str, bytes]]:
        while len(self.heard) < count:
            await self._arrival.wait()
        return self.heard


async def values(bus: Bus, bucket: Bucket) -> dict[str, bytes]:
    """Key -> value of a whole bucket."""
    return {key: entry.value for key, entry in (await bus.kv_entries(bucket)).items()}


async def test_a_stored_message_is_delivered_with_its_position_and_read_with_the_same_one(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox = Inbox(other)
        await join(other, "task:a")
        ids = [(channel, f"{channel}{n}") for n in (1, 2) for channel in ("task:a", "task:b")]
        offsets = [(await one.store(channel, b"x", store_id)).offset for channel, store_id in ids]
        assert offsets == [1, 2, 3, 4]
        assert await inbox.wait(2) == [("task:a", b"x")] * 2
        heard = [position for position in inbox.positions if position is not None]
        assert [(position.offset, position.previous) for position in heard] == [(1, 0), (3, 1)]
        found = (await other.read("task:a", 1)).messages
        assert [(stored.channel, stored.payload) for stored in found] == [("task:a", b"x")] * 2
        assert [(stored.position.offset, stored.position.time) for stored in found] == [
            (p.offset, p.time) for p in heard
        ]


async def test_what_is_stored_as_signed_is_signed_when_it_is_heard_and_however_it_is_read(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox = Inbox(other)
        await join(other, "task:a")
        await one.store("task:a", b"x", "first", signed=True)
        await one.store("task:a", b"x", "second")
        await inbox.wait(2)
        expected = [True, False]
        assert [position.signed for position in inbox.positions if position is not None] == expected
        for page in (await other.read("task:a", 1), await other.read_namespace("task", 1)):
            assert [stored.position.signed for stored in page.messages] == expected
        alone = [await other.read_one("task:a", offset) for offset in (1, 2)]
        assert [stored.position.signed for stored in alone if stored is not None] == expected


async def test_a_message_that_is_not_signed_cannot_take_the_store_id_of_one_that_is(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        assert await one.store("task:a", b"x", "id") == (1, False)
        assert await one.store("task:a", b"x", "id", signed=True) == (2, False)
        assert await other.store("task:a", b"x", "id", signed=True) == (2, True)


async def test_a_repeated_store_id_is_stored_once_and_the_answer_says_so_with_the_first_offset(
    open_bus: OpenBus,
) -> None:
    async with open_bus() as one, open_bus() as other:
        assert await one.store("task:a", b"first", "id") == (1, False)
        assert await one.store("task:a", b"2nd", "other") == (2, False)
        assert await other.store("task:a", b"again", "id") == (1, True)
        assert [stored.payload for stored in await read_all(one, "task:a")] == [b"first", b"2nd"]
        assert (await one.stream_state("task:a")).last == 2


async def test_messages_without_a_store_id_are_all_stored(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert [await bus.store("task:a", b"same") for _ in range(2)] == [(1, False), (2, False)]


async def test_one_message_is_read_by_its_offset_while_it_is_stored_in_that_channel(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        for number in (1, 2, 3):
            await bus.store("task:b" if number == 2 else "task:a", b"%d" % number)
        found = await bus.read_one("task:a", 3)
        assert found is not None
        assert (found.channel, found.payload, found.position.offset) == ("task:a", b"3", 3)
        assert [await bus.read_one("task:a", offset) for offset in (2, 4)] == [None, None]


async def test_a_message_is_stored_only_after_the_offset_that_is_the_channels_last_if_one_is_given(
    open_bus: OpenBus,
) -> None:
    async with open_bus() as bus:
        assert (await bus.store("task:a", b"1", "1", 0)).offset == 1
        assert (await bus.store("task:b", b"2", "2")).offset == 2
        for stale in (0, 2):
            with pytest.raises(ConflictError):
                await bus.store("task:a", b"stale", "3", stale)
        assert (await bus.store("task:a", b"3", "3", 1)).offset == 3
        assert [stored.payload for stored in await read_all(bus, "task:a")] == [b"1", b"3"]


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


async def test_last_offsets_name_the_channels_that_have_messages(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert await bus.last_offsets(["task:none"]) == {}
        for channel in ("task:a", "task:b", "task:a", "task:a.b"):
            await bus.store(channel, b"x", channel + str(await bus.stream_state(channel)))
        channels = ["task:a", "task:b", "task:none", *(f"task:none{number}" for number in range(900))]
        assert await bus.last_offsets(channels) == {"task:a": 3, "task:b": 2}


async def test_the_state_of_a_stream_gives_its_bounds_its_age_and_its_epoch(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        empty = await bus.stream_state("task:a")
        assert (empty.first, empty.last, empty.first_time, empty.size) == (1, 0, float("inf"), 0)
        await bus.store("task:a", b"x", "1")
        await bus.store("task:b", b"x", "2")
        state = await bus.stream_state("task:b")
        assert (state.epoch, state.first, state.last) == (empty.epoch, 1, 2)
        assert state.size > 0
        oldest = (await bus.read("task:a", 1)).messages[0].position
        assert state.first_time == datetime.fromisoformat(oldest.time).timestamp()
        assert (await bus.stream_state("doc:a")).epoch != state.epoch


async def test_to_try_whether_a_stream_takes_messages_stores_none_and_nobody_hears_of_it(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await bus.store("task:a", b"1", "1")
        await join(bus, "task:a")
        await join(bus, "task:x")
        before = await bus.stream_state("task:a")
        await bus.check_writable("task")
        assert await bus.stream_state("task:a") == before
        await bus.store("task:a", b"2", "2")
        assert await inbox.wait(1) == [("task:a", b"2")]


async def test_a_channel_keeps_its_newest_messages_and_its_neighbours_keep_theirs(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "short:a")
        await bus.store("short:b", b"x", "b")
        for number in range(5):
            await bus.store("short:a", b"%d" % number, f"a{number}")
        assert [stored.payload for stored in await read_all(bus, "short:a")] == [b"2", b"3", b"4"]
        assert len(await read_all(bus, "short:b")) == 1
        await inbox.wait(5)
        # A limit on the number drops the oldest ones, so the position of each still names its true predecessor.
        assert [(position.offset, position.previous) for position in inbox.positions if position] == [
            (2, 0), (3, 2), (4, 3), (5, 4), (6, 5)
        ]  # fmt: skip


async def test_a_message_that_is_too_large_is_refused_and_harms_no_other(open_bus: OpenBus) -> None:
    # The server counts headers as well, and ends the connection of a client that sends too much.
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "task:a")
        for size in (1024 * 1024 + 1, 10_000_000):
            with pytest.raises(BusError, match=r"\d bytes"):
                await bus.store("task:a", b"x" * size, "big")
            with pytest.raises(BusError, match=r"\d bytes"):
                await bus.publish("news:a", b"x" * size)
        await bus.store("task:a", b"x" * (1024 * 1024 - 200), "large")
        assert (await bus.store("task:a", b"small", "small")).offset == 2
        assert [len(payload) for _, payload in await inbox.wait(2)] == [1024 * 1024 - 200, 5]


async def test_pages_of_large_messages_are_shorter_and_skip_none(open_bus: OpenBus) -> None:
    # JetStream limits a batch in bytes as well; if that were taken for the end, all messages after it would be lost.
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


async def test_no_message_of_a_namespaces_page_hides_what_its_channel_has_before_the_page(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        offsets = [(await bus.store(channel, b"x")).offset for channel in ("task:a", "task:b", "task:a", "task:b")]
        page = await bus.read_namespace("task", offsets[2])
        assert [stored.position.offset for stored in page.messages] == offsets[2:]
        before = [stored.position.previous for stored in page.messages]
        assert [before[0] >= offsets[0], before[1] >= offsets[1]] == [True, True]


# --- buckets ------------------------------------------------------------------------------------------------------


async def test_a_key_is_updated_only_at_the_revision_it_has(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        await one.kv_update(Bucket.LEASES, "duty", b"1", 0)
        with pytest.raises(ConflictError):
            await other.kv_update(Bucket.LEASES, "duty", b"2", 0)
        entry = await other.kv_get(Bucket.LEASES, "duty")
        assert entry is not None
        await other.kv_update(Bucket.LEASES, "duty", b"2", entry.revision)
        with pytest.raises(ConflictError):
            await one.kv_update(Bucket.LEASES, "duty", b"3", entry.revision)
        assert await values(one, Bucket.LEASES) == {"duty": b"2"}


async def test_a_write_returns_the_revision_that_the_key_has_from_then_on(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        revision = 0
        for write in range(3):
            value = b"%d" % write
            revision = await bus.kv_update(Bucket.TASKS, "task.a", value, revision)
            revision = await bus.kv_put(Bucket.TASKS, "task.a", value, 60, revision)
            entry = await bus.kv_get(Bucket.TASKS, "task.a")
            assert entry is not None
            assert (entry.value, entry.revision) == (value, revision)


async def test_a_key_is_put_only_at_the_revision_it_has_if_one_is_given(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        revision = await bus.kv_put(Bucket.TASKS, "task.a", b"1", 60, 0)
        for stale in (0, revision + 7):
            with pytest.raises(ConflictError):
                await bus.kv_put(Bucket.TASKS, "task.a", b"stale", 60, stale)
        assert await bus.kv_put(Bucket.TASKS, "task.a", b"2", 60) > revision
        assert await values(bus, Bucket.TASKS) == {"task.a": b"2"}


async def test_an_entry_says_when_it_was_written_by_the_clock_of_the_streams(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.store("task:a", b"x", "1")
        await bus.kv_put(Bucket.TASKS, "task.a", b"x", 60)
        await bus.store("task:a", b"x", "2")
        entry = (await bus.kv_entries(Bucket.TASKS))["task.a"]
        assert await bus.kv_get(Bucket.TASKS, "task.a") == entry
        before, after = [stored.position.time for stored in (await bus.read("task:a", 1)).messages]
        moments = [datetime.fromisoformat(moment) for moment in (before, entry.time, after)]
        assert moments == sorted(moments)


async def test_many_keys_are_got_at_once_however_large_without_those_that_do_not_exist(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert await bus.kv_get_many(Bucket.TASKS, ["task.none"]) == {}
        for number in range(20):
            await bus.kv_put(Bucket.TASKS, f"task.{number}", b"%d" % number + b"x" * 900_000, 60)
        keys = [f"task.{number}" for number in range(500)]
        found = await bus.kv_get_many(Bucket.TASKS, keys)
        assert found == await bus.kv_entries(Bucket.TASKS)
        assert len(found) == 20


async def test_entries_are_all_keys_of_a_bucket_but_the_emptied_ones(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        assert await bus.kv_entries(Bucket.RUNNING) == {}
        await bus.kv_put(Bucket.TASKS, "task.other", b"x", 60)
        for number in range(READ_BATCH + 10):
            await bus.kv_put(Bucket.RUNNING, f"task.a.{number}", b"%d" % number, 60)
        await bus.kv_put(Bucket.RUNNING, "task.a.5", b"", 60)
        await bus.kv_put(Bucket.RUNNING, "task.a.6", b"new", 60)
        wanted = {f"task.a.{number}": b"%d" % number for number in range(READ_BATCH + 10)} | {"task.a.6": b"new"}
        del wanted["task.a.5"]
        assert await values(bus, Bucket.RUNNING) == wanted
        entry = await bus.kv_get(Bucket.RUNNING, "task.a.6")
        assert entry is not None
        assert entry.value == b"new"


async def test_entries_of_a_prefix_or_after_a_revision_are_had_alone(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        for key in ("1.task.a", "1.task.b", "11.task.c", "1", "2.task.a"):
            last = await bus.kv_put(Bucket.RUNNING, key, key.encode(), 60)
        assert set(await bus.kv_entries(Bucket.RUNNING, "1")) == {"1.task.a", "1.task.b"}
        assert await bus.kv_entries(Bucket.RUNNING, "1", last) == {}
        await bus.kv_put(Bucket.RUNNING, "1.task.a", b"new", 60)
        newer = await bus.kv_entries(Bucket.RUNNING, after=last)
        assert {key: entry.value for key, entry in newer.items()} == {"1.task.a": b"new"}


async def test_entries_come_in_pages_in_the_order_of_their_revisions_with_the_emptied_ones(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        for key in ("task.a", "task.b", "task.c", "task.a"):
            await bus.kv_put(Bucket.RUNNING, key, b"" if key == "task.c" else b"x", 60)
        first = await bus.kv_page(Bucket.RUNNING, 0, 2)
        assert list(first) == ["task.b", "task.c"]
        last = max(entry.revision for entry in first.values())
        rest = await bus.kv_page(Bucket.RUNNING, last, 2)
        assert [(key, entry.value) for key, entry in rest.items()] == [("task.a", b"x")]
        assert await bus.kv_page(Bucket.RUNNING, rest["task.a"].revision, 2) == {}


async def test_a_key_expires_after_its_seconds(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.kv_put(Bucket.TASKS, "task.long", b"x", 60)
        await bus.kv_put(Bucket.TASKS, "task.short", b"x", 0.5)
        assert set(await bus.kv_entries(Bucket.TASKS)) == {"task.long", "task.short"}
        while await bus.kv_get(Bucket.TASKS, "task.short") is not None:
            await trio.sleep(0.05)
        assert await values(bus, Bucket.TASKS) == {"task.long": b"x"}


async def test_a_key_that_is_put_soon_needs_no_waiting_and_no_revision(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.kv_update(Bucket.SESSIONS, "s", b"old", 0)
        bus.kv_put_soon(Bucket.SESSIONS, "s", b"new")
        while await values(bus, Bucket.SESSIONS) != {"s": b"new"}:
            await trio.sleep(0.01)


async def test_a_value_that_is_too_large_is_refused(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        with pytest.raises(TooLargeError, match=r"\d bytes"):
            await bus.kv_put(Bucket.TASKS, "task.a", b"x" * (1024 * 1024 + 1), 60)


async def test_a_read_of_a_few_messages_says_how_many_more_there_are(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        for number in range(9):
            await bus.store(("task:a", "task:b", "task:a")[number % 3], b"%d" % number)
        page = await bus.read("task:a", 2, 1)
        assert ([stored.payload for stored in page.messages], page.more) == ([b"2"], 4)
        page = await bus.read("task:a", 8, 5)
        assert ([stored.payload for stored in page.messages], page.more) == ([b"8"], 0)
        assert await bus.read("task:a", 10, 1) == ([], 0)


async def test_a_watcher_hears_of_what_was_stored_and_of_nothing_that_was_refused(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        changes, bucket = Changes(), Bucket.API_KEYS
        assert not other.kv_is_watched(bucket)
        await other.kv_watch(bucket, changes)
        assert other.kv_is_watched(bucket)
        assert not one.kv_is_watched(bucket)
        assert not other.kv_is_watched(Bucket.WORKERS)
        revision = await one.kv_update(bucket, "a", b"1", 0)
        with pytest.raises(ConflictError):
            await one.kv_update(bucket, "a", b"refused", 0)
        await one.kv_put(Bucket.WORKERS, "a", b"of another bucket", 10)
        await one.kv_update(bucket, "a", b"", revision)
        assert await changes.wait(2) == [("a", b"1"), ("a", b"")]
        assert changes.interruptions == 0


async def test_whoever_is_told_of_a_change_finds_it_in_the_store(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other, trio.open_nursery() as nursery:
        changes = Changes()
        await other.kv_watch(Bucket.WORKERS, changes)
        for number in range(50):
            value = b"%d" % number
            nursery.start_soon(one.kv_put, Bucket.WORKERS, "worker", value, 60)
            assert (await changes.wait(number + 1))[-1] == ("worker", value)
            entry = await other.kv_get(Bucket.WORKERS, "worker")
            assert entry is not None
            assert entry.value == value
