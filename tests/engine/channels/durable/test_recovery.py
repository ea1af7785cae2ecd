"""The recovery: what a worker missed is put right from the stream, whatever happens meanwhile, or told by a `gap`."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
import trio
import trio.testing

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import READ_BATCH, Page, Stored, StreamPosition, StreamState
from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope, MessageType
from tests.engine.parts import Parts, idle_outbox
from tests.support.faults.breaking import raise_zero_division

CHANNEL = "task:1"
OTHER = "task:other"


class SlowBus(MemoryBus):
    """Waits at a gate before each answer; `lost` are the offsets that never reach this worker. A read has
    `page` messages at most.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.gate: trio.Event | None = None
        self.waiting = trio.Event()
        self.lost: set[int] = set()
        self.page = READ_BATCH

    def hand_over(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        if position is None or position.offset not in self.lost:
            super().hand_over(channel, payload, position)

    async def read(self, channel: str, start: int, most: int = READ_BATCH) -> Page:
        page = await super().read(channel, start, min(most, self.page))
        await self._pass()
        return page

    async def stream_state(self, channel: str) -> StreamState:
        state = await super().stream_state(channel)
        await self._pass()
        return state

    async def _pass(self) -> None:
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
            if not self.broker.available:
                raise BusError("lost on its way")

    def close_gate(self) -> trio.Event:
        self.gate, self.waiting = trio.Event(), trio.Event()
        return self.gate


class Worker:
    """A hub that records what it delivers, and its recovery."""

    def __init__(self, nursery: trio.Nursery, log_limit: int, namespace: Namespace) -> None:
        namespaces = Namespaces({"task": namespace})
        self.broker = MemoryBroker(namespaces)
        self.bus = SlowBus(self.broker)
        parts = Parts(self.bus, nursery, namespaces, log_limit)
        self.hub, self.recovery, self.history, self.router = parts.hub, parts.recovery, parts.history, parts.router
        self.states = parts.states
        self._open: dict[str, Channel] = {}
        self.told: list[Any] = []
        self._news = trio.Event()
        deliver = self.hub._deliver

        def record(channel: Channel | None, namespace: Namespace, envelopes: Any) -> None:
            envelopes = list(envelopes)
            self.told += [brief(envelope) for envelope in envelopes if envelope.channel == CHANNEL]
            deliver(channel, namespace, envelopes)
            self._news.set()
            self._news = trio.Event()

        self.hub._deliver = record  # type: ignore[method-assign]  # the test's ear

    async def join(self, name: str = CHANNEL) -> DurableChannel:
        channel = self._open[name] = self.router.acquire(name)
        assert channel.durable is not None
        await self.recovery.wait_steady(channel.durable)
        return channel.durable

    def opened(self, name: str) -> Channel:
        return self._open[name]

    def leave(self, name: str = CHANNEL) -> None:
        self.router.release(self._open.pop(name))

    async def store(self, count: int = 1, channel: str = CHANNEL) -> None:
        for _ in range(count):
            last = self.broker.streams["task"].state().last
            await self.bus.store(
                channel, b"%d" % (last + 1), f"id{last + 1}/{self.broker.streams['task'].state().epoch}"
            )

    async def missed(self, count: int = 1, channel: str = CHANNEL) -> None:
        """Stored while the bus is away."""
        self.bus.leave(channel)
        await self.store(count, channel)
        self.bus.join(channel)

    async def wait_told_some(self) -> None:
        """Wait until anything has been delivered."""
        while not self.told:
            await self._news.wait()

    async def wait_told(self, *expected: Any) -> None:
        """Wait for as much as is expected, and compare."""
        while len(self.told) < len(expected):
            await self._news.wait()
        assert self.told == list(expected)


def brief(envelope: Envelope) -> Any:
    """(previous, offset) of a message, (from, to, reason) of a gap."""
    if envelope.type == MessageType.GAP:
        return tuple(envelope.data.values())
    return (envelope.previous, envelope.offset)


@asynccontextmanager
async def worker(*, log_limit: int = 1000, **namespace: Any) -> AsyncIterator[Worker]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield Worker(nursery, log_limit, Namespace(durable=True, **namespace))
            nursery.cancel_scope.cancel()


def chain(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Messages of a channel that has the stream for itself."""
    return ((offset - 1, offset) for offset in range(first, last + 1))


# --- what the worker missed --------------------------------------------------------------------------------------


async def test_after_an_outage_a_channel_that_moved_goes_on_exactly_and_one_that_did_not_costs_no_read() -> None:
    async with worker() as one:
        await one.store()
        await one.join()
        await one.join(OTHER)
        await one.missed(3)
        reads = one.bus.reads
        one.bus.on_loss(time.time() - 1)
        await one.wait_told(*chain(2, 4))
        await one.store()
        await one.wait_told(*chain(2, 5))
        assert one.bus.reads == reads + 1


async def test_messages_that_come_between_the_outage_and_its_mending_are_neither_repeated_nor_early() -> None:
    async with worker() as one:
        await one.store()
        await one.join()
        await one.missed(2)
        gate = one.bus.close_gate()
        one.bus.on_loss(time.time() - 1)
        await one.bus.waiting.wait()
        await one.store(2)
        assert one.told == []
        gate.set()
        await one.wait_told(*chain(2, 5))


async def test_an_outage_longer_than_messages_are_kept_is_a_gap_and_not_silence() -> None:
    async with worker(max_age=60) as one:
        await one.store()
        log = await one.join()
        await one.missed(3)
        one.broker.streams["task"].expire(3)
        one.bus.on_loss(time.time() - 61)
        await one.wait_told((2, 3, "expired"), (3, 4))
        await one.missed(2)
        one.broker.streams["task"].expire(6)
        one.bus.on_loss(time.time() - 61)
        await one.recovery.wait_steady(log)
        assert one.told[2:] == [(5, 6, "expired")]
        await one.store()
        await one.wait_told((2, 3, "expired"), (3, 4), (5, 6, "expired"), (6, 7))


class CountedPayload(bytes):
    """A payload that was read from the stream; `held` counts those that anything still refers to."""

    held = 0

    def __new__(cls, payload: bytes) -> Self:
        CountedPayload.held += 1
        return super().__new__(cls, payload)

    def __del__(self) -> None:
        CountedPayload.held -= 1


async def test_what_is_held_at_once_of_a_long_outage_is_a_page_and_the_log() -> None:
    held = [0]
    async with worker(log_limit=5, history=5000) as one:
        one.bus.page = 20
        read = one.bus.read

        async def counted(channel: str, start: int, most: int = READ_BATCH) -> Page:
            held.append(CountedPayload.held)
            page = await read(channel, start, most)
            return page._replace(messages=[Stored(c, CountedPayload(data), at) for c, data, at in page.messages])

        one.bus.read = counted  # type: ignore[method-assign]  # the test's eye
        await one.store()
        await one.join()
        await one.missed(1000)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told(*chain(2, 1001))
        assert len(held) > 50
        assert max(held) <= 20 + 5


async def test_no_large_page_is_read_before_the_last_one_was_taken_for_the_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fanline.engine.channels.durable.recovery.SMALL_BYTES", 10)
    async with worker() as one:
        one.bus.page = 10
        log = await one.join()
        one.opened(CHANNEL).add(encoding_of(JSON, False), idle_outbox())
        await one.missed(100)
        one.bus.on_loss(time.time() - 1)
        for reached in (10, 19, 28):  # each page begins with the last message of the one before
            await trio.testing.wait_all_tasks_blocked()
            assert log.last == reached
            one.hub.take_dirty()


async def test_messages_that_fill_a_page_each_are_recovered_and_joined_all_the_same() -> None:
    async with worker(log_limit=2) as one:
        one.bus.page = 1
        await one.store()
        log = await one.join()
        await one.missed(9)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told(*chain(2, 10))
        for offset in range(10):
            assert await offsets_since(one, log, offset) == (list(range(offset + 1, 11)), [])


async def test_two_channels_with_a_long_outage_are_recovered_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.channels.durable.recovery.PAGES", 1)
    async with worker() as one:
        one.bus.page = 10
        logs = [await one.join(), await one.join(OTHER)]
        lasts: list[tuple[int, int]] = []
        deliver = one.hub.deliver

        def note(durable: DurableChannel, envelopes: Iterable[Envelope]) -> None:
            deliver(durable, envelopes)
            lasts.append((logs[0].last, logs[1].last))

        one.hub.deliver = note  # type: ignore[method-assign]
        await one.missed(100)
        await one.missed(100, OTHER)
        one.bus.on_loss(time.time() - 1)
        for log in logs:
            await one.recovery.wait_steady(log)
        assert [log.last for log in logs] == [100, 200]
        assert any(0 < first < 100 and 0 < other < 200 for first, other in lasts)


async def test_an_outage_in_the_middle_of_a_long_recovery_costs_nothing_that_was_stored() -> None:
    async with worker() as one:
        one.bus.page = 10
        await one.store()
        log = await one.join()
        await one.missed(50)
        gate = one.bus.close_gate()
        one.bus.on_loss(time.time() - 1)
        await one.bus.waiting.wait()
        one.bus.gate = None
        gate.set()
        await one.wait_told_some()
        assert 1 < log.last < 51
        one.broker.available = False
        one.bus.leave(CHANNEL)
        await trio.testing.wait_all_tasks_blocked()
        one.broker.available = True
        await one.missed(50)
        one.bus.on_loss(time.time())
        await one.store()
        await one.wait_told(*chain(2, 102))


async def test_a_stream_recreated_in_the_middle_of_a_long_recovery_is_reported_and_read_from_its_start() -> None:
    async with worker() as one:
        one.bus.page = 10
        await one.store()
        await one.join()
        await one.missed(50)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told_some()
        told = len(one.told)
        assert told < 50
        one.broker.recreate("task")
        await one.store(30)
        await one.wait_told(*chain(2, told + 1), (0, 0, "epoch"), *chain(1, 30))


async def test_messages_that_expire_in_the_middle_of_a_long_recovery_are_a_gap() -> None:
    async with worker(max_age=60) as one:
        one.bus.page = 10
        await one.store()
        await one.join()
        await one.missed(50)
        one.bus.on_loss(time.time() - 61)
        await one.wait_told_some()
        reached = one.told[-1][1]
        assert reached < 40
        one.broker.streams["task"].expire(45)
        await one.wait_told(*chain(2, reached), (reached + 1, 45, "expired"), (45, 46), *chain(47, 51))


async def test_a_short_outage_of_a_channel_whose_history_expired_long_ago_is_no_false_gap() -> None:
    async with worker(max_age=60) as one:
        await one.store()
        log = await one.join()
        one.broker.streams["task"].expire(1)
        await one.store(channel=OTHER)
        one.bus.on_loss(time.time() - 2)
        await one.recovery.wait_steady(log)
        await one.store()
        await one.wait_told((1, 3))


async def test_a_gap_of_the_channels_length_covers_exactly_what_is_gone() -> None:
    async with worker(history=3) as one:
        await one.store()
        await one.join()
        await one.missed(5)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told((2, 3, "expired"), *chain(4, 6))


async def test_as_many_missed_as_a_channel_keeps_is_no_gap_while_the_last_one_heard_is_still_there() -> None:
    async with worker(history=3) as one:
        await one.store()
        await one.join()
        await one.missed(2)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told(*chain(2, 3))


async def test_mending_tries_again_when_the_bus_fails_in_the_middle() -> None:
    async with worker() as one:
        await one.store()
        log = await one.join()
        gate = one.bus.close_gate()
        one.bus.lost = {2}
        await one.store(2)
        await one.bus.waiting.wait()
        one.broker.available = False
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (one.told, log.state) == ([], DurableState.RECOVERING)
        one.broker.available = True
        await one.wait_told(*chain(2, 3))


async def test_a_hole_found_while_another_one_is_mended_is_mended_too() -> None:
    async with worker() as one:
        await one.join()
        one.bus.lost = {1, 3, 5}
        gate = one.bus.close_gate()
        await one.store(2)
        await one.bus.waiting.wait()  # the answer to the first hole is on its way, and knows 1 and 2 only
        await one.store(4)
        gate.set()
        await one.wait_told(*chain(1, 6))


async def test_a_subscriber_who_leaves_ends_the_mending() -> None:
    async with worker() as one:
        await one.join()
        one.broker.available = False
        one.bus.on_loss(time.time())
        await trio.testing.wait_all_tasks_blocked()
        one.leave()
        one.broker.available = True
        await one.recovery.wait_steady(DurableChannel("task:x", Namespace(durable=True), 1))
        while one.recovery._nursery.child_tasks:
            await trio.sleep(0.01)
        assert one.told == []


async def test_the_log_of_those_who_left_says_nothing_to_those_who_came_after_them() -> None:
    # Everybody leaves while a hole is being mended, and somebody joins before the answer is there: the old log would
    # deliver to the channel of the new one, a second time and out of order.
    async with worker() as one:
        await one.join()
        gate = one.bus.close_gate()
        one.bus.lost = {1}
        await one.store(2)
        await one.bus.waiting.wait()
        one.bus.gate = None
        one.leave()
        await one.join()
        await one.store()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await one.wait_told((2, 3))


async def test_a_join_waits_for_the_mending_and_goes_on_with_it() -> None:
    async with worker() as one:
        log = await one.join()
        gate = one.bus.close_gate()
        one.bus.lost = {1}
        await one.store(2)
        await one.bus.waiting.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.recovery.wait_steady, log)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            gate.set()
        assert (await one.history.after(log, 0)).messages == log.log.all()
        await one.wait_told(*chain(1, 2))


async def test_a_join_that_waits_for_the_mending_goes_on_when_what_was_held_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with worker() as one:
        log = await one.join()
        await one.store()
        gate = one.bus.close_gate()
        one.recovery.bus_is_back(time.time())
        await one.bus.waiting.wait()
        await one.store()  # held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.recovery.wait_steady, log)
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(DurableChannel, "recover", raise_zero_division)
            gate.set()
        await one.wait_told((0, 1), (2, 2, "fault"))


async def test_a_channel_whose_repeated_message_cannot_be_held_is_recovered_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with worker() as one:
        log = await one.join()
        await one.store(2)
        with monkeypatch.context() as patch:
            patch.setattr(DurableChannel, "_hold", raise_zero_division)
            one.hub.receive(CHANNEL, b"2", StreamPosition(2, 1, "2026-01-01T00:00:00Z"))
        await one.recovery.wait_steady(log)
        await one.store()
        assert log.last == 3


async def test_what_was_held_while_a_channel_was_opened_is_read_again_after_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fanline.engine.faults.QUARANTINE_SECONDS", 0.2)
    async with worker() as one:
        await one.store()
        gate = one.bus.close_gate()
        async with trio.open_nursery() as nursery:

            async def join_in_vain() -> None:
                with pytest.raises(BusError, match="out of service"):
                    await one.join()

            nursery.start_soon(join_in_vain)
            await one.bus.waiting.wait()
            await one.store(2)  # held
            with monkeypatch.context() as patch:
                patch.setattr(DurableChannel, "_release", raise_zero_division)
                gate.set()
                await trio.testing.wait_all_tasks_blocked()
        await one.wait_told(*chain(2, 3))
        assert (await one.join()).last == 3


async def test_a_hole_whose_messages_were_purged_is_a_gap_and_not_a_stall() -> None:
    # The message that told of the hole is gone from the stream as well: looking again will never show it.
    async with worker() as one:
        await one.join()
        await one.store(channel=OTHER)
        one.bus.lost = {2}
        gate = one.bus.close_gate()
        await one.store(2)
        stream = one.broker.streams["task"]
        stream._messages = [stored for stored in stream._messages if stored.channel != CHANNEL]
        gate.set()
        await one.wait_told((1, 2, "expired"), (2, 3))


async def test_an_outage_while_a_channel_is_being_opened_leaves_no_hole_behind() -> None:
    # The offset was told before the outage and the epoch after it; what was published between was never heard.
    async with worker() as one:
        await one.store()
        gate = one.bus.close_gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.join)
            await one.bus.waiting.wait()
            await one.missed()
            one.bus.on_loss(time.time())
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            await one.wait_told((1, 2))


async def test_of_two_outages_the_older_one_counts() -> None:
    # The second is short, and taken alone it would vouch for a channel that the first one left in doubt.
    async with worker(max_age=60) as one:
        await one.store()
        log = await one.join()
        await one.missed(2)
        one.broker.streams["task"].expire(3)
        one.broker.available = False
        one.bus.on_loss(time.time() - 61)
        await trio.testing.wait_all_tasks_blocked()
        one.bus.on_loss(time.time())
        one.broker.available = True
        await one.recovery.wait_steady(log)
        assert one.told == [(2, 3, "expired")]


async def test_a_request_that_failed_is_not_answered_with_an_older_answer() -> None:
    # One asks for the state of a stream, and two wait to ask. The request of the second fails, and the third used to
    # get the answer of the first, from before it came: another epoch, and messages that are gone.
    async with worker() as one:
        await one.join()
        gate = one.bus.close_gate()
        states: list[StreamState] = []

        async def ask() -> None:
            try:
                states.append(await one.states.now(CHANNEL))
            except BusError:
                one.broker.available = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await one.bus.waiting.wait()
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            old = one.broker.streams["task"].state().epoch
            second = one.bus.close_gate()
            gate.set()
            await one.bus.waiting.wait()
            one.broker.recreate("task")
            one.broker.available = False
            second.set()
        assert [state.epoch for state in states] == [old, one.broker.streams["task"].state().epoch]


async def test_a_stream_made_anew_during_an_outage_is_told_and_read_from_its_start() -> None:
    async with worker() as one:
        await one.store(3)
        await one.join()
        one.broker.recreate("task")
        await one.missed(5)
        one.bus.on_loss(time.time() - 1)
        await one.wait_told((0, 0, "epoch"), *chain(1, 5))


# --- what a client missed ----------------------------------------------------------------------------------------


async def offsets_since(one: Worker, log: DurableChannel, offset: int) -> tuple[list[Any], list[Any]]:
    """All messages after an offset and all gaps on the way; each page must follow on the one before."""
    messages: list[int] = []
    gaps: list[Any] = []
    while True:
        more = await one.history.after(log, offset)
        gaps += [brief(more.gap)] if more.gap is not None else []
        messages += [envelope.offset or 0 for envelope in more.messages]
        assert offset < more.reached or more.reached == log.last
        offset = more.reached
        if offset >= log.last:
            return messages, gaps


async def test_history_longer_than_a_page_and_than_the_log_is_whole() -> None:
    async with worker(history=5000, log_limit=100) as one:
        await one.store(2500)
        log = await one.join()
        await one.store(150)
        for offset in (0, 1, 1400, 2499, 2549, 2550, 2650):
            assert await offsets_since(one, log, offset) == (list(range(offset + 1, 2651)), [])


async def test_history_that_fills_the_log_over_its_limit_is_not_cut_at_the_front() -> None:
    # What was read went through the log, which kept only its newest `log_limit` messages.
    async with worker(history=5000, log_limit=100) as one:
        await one.store(80)
        log = await one.join()
        await one.store(50)
        assert await offsets_since(one, log, 0) == (list(range(1, 131)), [])


async def test_a_page_of_nothing_readable_is_not_the_end_of_the_history() -> None:
    async with worker(history=5000) as one:
        for number in range(1001):
            await one.bus.store(CHANNEL, b"{broken", f"bad{number}")
        await one.store()
        log = await one.join()
        assert await offsets_since(one, log, 0) == ([1002], [])


async def test_messages_that_push_others_out_of_the_log_during_a_slow_read_are_not_lost() -> None:
    # The log's floor rose above the end of what was read, and that was taken for reaching the log.
    async with worker(log_limit=5) as one:
        await one.store(10)
        log = await one.join()
        gate = one.bus.close_gate()
        result: list[Any] = []

        async def look() -> None:
            result.append(await offsets_since(one, log, 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await one.bus.waiting.wait()
            await one.store(20)
            one.bus.gate = None
            gate.set()
        assert result == [(list(range(3, 31)), [])]


async def test_who_wants_everything_there_is_does_not_hide_a_gap_from_the_next_one() -> None:
    # The log that one who wanted all left behind seemed to reach back to offset 0.
    async with worker(history=3) as one:
        await one.store(10)
        log = await one.join()
        assert await offsets_since(one, log, 0) == ([8, 9, 10], [(1, 7, "expired")])
        assert await offsets_since(one, log, 2) == ([8, 9, 10], [(3, 7, "expired")])
        assert await offsets_since(one, log, 0) == ([8, 9, 10], [(1, 7, "expired")])
        assert await offsets_since(one, log, 6) == ([8, 9, 10], [(7, 7, "expired")])


async def test_a_client_that_has_all_but_what_is_stored_is_told_of_no_gap() -> None:
    async with worker(history=3) as one:
        await one.store(10)
        log = await one.join()
        assert await offsets_since(one, log, 7) == ([8, 9, 10], [])
        assert await offsets_since(one, log, 5) == ([8, 9, 10], [(6, 7, "expired")])
        assert await offsets_since(one, log, 7) == ([8, 9, 10], [])


async def test_a_full_channel_longer_than_a_page_is_known_to_have_lost_its_oldest() -> None:
    # The stream's oldest message belongs to another channel, so only the count tells; one page was taken for the count.
    async with worker(history=1500) as one:
        await one.store(channel=OTHER)
        await one.store(2000)
        log = await one.join()
        assert await offsets_since(one, log, 3) == (list(range(502, 2002)), [(4, 501, "expired")])


async def test_many_who_look_back_at_once_make_few_reads() -> None:
    async with worker() as one:
        await one.store(500)
        log = await one.join()
        async with trio.open_nursery() as nursery:
            for offset in range(0, 500, 5):
                nursery.start_soon(one.history.after, log, offset)
        assert one.bus.reads <= 2


async def test_a_look_back_that_fails_or_is_given_up_leaves_the_next_one_a_whole_history() -> None:
    async with worker() as one:
        await one.store(10)
        log = await one.join()
        one.broker.available = False
        with pytest.raises(BusError):
            await one.history.after(log, 5)
        one.broker.available = True
        one.bus.close_gate()
        with trio.move_on_after(0.01) as scope:
            await one.history.after(log, 5)
        assert scope.cancelled_caught
        one.bus.gate = None
        assert await offsets_since(one, log, 5) == ([6, 7, 8, 9, 10], [])
