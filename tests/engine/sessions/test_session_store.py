"""The session store: how often, how much and in which order it writes. Counted in bytes, by a clock that jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBus
from fanline.engine.sessions.store import MAX_CHANNELS, PAUSE, REST, SessionStore
from fanline.protocol.channels import MAX_CHANNEL_LENGTH
from fanline.protocol.nats.names import Bucket

NOTE_BYTES = MAX_CHANNELS * (MAX_CHANNEL_LENGTH + len('"",')) + len('{"user":null,"channels":[]}')
"""The largest note."""


class RecordingBus(MemoryBus):
    """Remembers what was written, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[float, str, int]] = []

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        self.writes.append((trio.current_time(), key, len(value)))
        super().kv_put_soon(bucket, key, value)

    def bytes_per_round(self) -> list[int]:
        moments = sorted({moment for moment, _, _ in self.writes})
        return [sum(size for at, _, size in self.writes if at == moment) for moment in moments]

    def moments(self, session: str) -> list[float]:
        return [moment for moment, key, _ in self.writes if key == session]


@asynccontextmanager
async def running_store() -> AsyncIterator[tuple[SessionStore, RecordingBus]]:
    bus = RecordingBus()
    store = SessionStore(bus)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store, bus
        nursery.cancel_scope.cancel()


def channels(count: int) -> dict[str, None]:
    """With names as long as they may be."""
    return {f"room:{number:0{MAX_CHANNEL_LENGTH - 5}}": None for number in range(count)}


async def test_a_large_session_that_keeps_changing_is_written_once_in_its_rest_and_last_as_it_is(
    autojump_clock: MockClock,
) -> None:
    names = channels(1000)
    async with running_store() as (store, bus):
        for number in range(100):  # ten changes a second
            names[f"room:{number}"] = None
            store.put("large", None, names)
            await trio.sleep(0.1)
        moments = bus.moments("large")
        assert len(moments) <= 10 / REST + 1
        assert all(round(later - sooner, 6) >= REST for sooner, later in pairwise(moments))
        await trio.sleep(REST + 2 * PAUSE)
        found = await store.find("large")
        assert found is not None
        assert found.channels == list(names)
        assert len(bus.moments("large")) <= len(moments) + 1


async def test_a_change_is_written_at_once_if_the_session_has_rested(autojump_clock: MockClock) -> None:
    async with running_store() as (store, bus):
        for _ in range(3):
            begun = trio.current_time()
            store.put("one", "ann", ["room:1"])
            await trio.sleep(REST + 2 * PAUSE)
            assert bus.moments("one")[-1] - begun <= 2 * PAUSE
        assert len(bus.writes) == 3


async def test_no_round_writes_more_than_one_session_may_have_however_many_large_ones_change(
    autojump_clock: MockClock,
) -> None:
    sizes = [1, 1024, MAX_CHANNELS, 700]
    held = {f"s{number}": channels(sizes[number % len(sizes)]) for number in range(200)}
    async with running_store() as (store, bus):
        for _ in range(5):
            for session, names in held.items():
                store.put(session, None, names)
            await trio.sleep(REST)
        await trio.sleep(60)
        assert max(bus.bytes_per_round()) <= NOTE_BYTES + 200 * 30
        assert {key for _, key, _ in bus.writes} == set(held)


async def test_large_sessions_that_keep_changing_do_not_hold_up_a_small_one(autojump_clock: MockClock) -> None:
    large = channels(1024)
    async with running_store() as (store, bus):
        for session in range(1000):
            store.put(f"large{session}", None, large)
        await trio.sleep(10 * PAUSE)
        begun = trio.current_time()
        store.put("small", None, ["room:1"])
        while not bus.moments("small"):
            for session in range(1000):
                store.put(f"large{session}", None, large)
            await trio.sleep(PAUSE)
        assert bus.moments("small")[0] - begun <= 4 * PAUSE


async def test_of_a_session_with_too_many_channels_nothing_is_kept_not_even_what_it_was(
    autojump_clock: MockClock,
) -> None:
    names = channels(MAX_CHANNELS)
    async with running_store() as (store, bus):
        store.put("one", None, names)
        await trio.sleep(2 * PAUSE)
        found = await store.find("one")
        assert found is not None
        assert len(found.channels) == MAX_CHANNELS
        names["room:one more"] = None
        store.put("one", None, names)
        await trio.sleep(REST + 2 * PAUSE)
        assert await store.find("one") is None
        assert max(size for _, _, size in bus.writes) <= NOTE_BYTES


async def test_what_has_rested_is_forgotten(autojump_clock: MockClock) -> None:
    async with running_store() as (store, bus):
        for number in range(300):
            store.put(f"s{number}", None, ["room:1"])
        await trio.sleep(REST + 2 * PAUSE)
        store.put("last", None, ["room:1"])
        await trio.sleep(2 * PAUSE)
        assert len(bus.writes) == 301
        assert list(store._resting) == ["last"]
