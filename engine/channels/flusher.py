"""The flusher: takes what the hub has pending and pushes it to every subscriber's outbox.

One joined bytes object per group and flush, shared by all members, so the cost is one `send` per connection and flush
and not per message: batches grow by themselves exactly when the worker is busy.

A little work is done at the end of the burst that caused it: with few subscribers to a channel, two turns of the
loop cost more than the pushes. More is left to the flusher's task, which cuts it into slices, so that reading,
accepting and heartbeats get their turn between them.
"""

from collections.abc import Iterator
from time import perf_counter_ns

import trio

from fanline.engine.channels.group import FlushBatch
from fanline.engine.channels.hub import Hub
from fanline.engine.counters import Counters
from fanline.engine.sending.batch import EncodedBatch
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import Slices

_CHECK_EVERY = 128  # pushes between two looks at the clock: about half a millisecond
_AT_ONCE = 256  # pushes at the end of a burst
_TIMED_EVERY = 8  # of the flushes at the end of a burst: to note the time of each would cost a percent of all work
_SLOW_NS = 100_000_000  # of a flush that is counted as a slow one
_REST_BYTES = 4 * 1024 * 1024  # received while the flusher rests: then it goes on at once

_Bundles = dict[Outbox, list[tuple[bytes, EncodedBatch]]]


class Flusher:
    """`coalesce_ms`: the most milliseconds to rest after a flush; 0 for none."""

    def __init__(self, hub: Hub, counters: Counters, *, coalesce_ms: float) -> None:
        self._hub = hub
        self._counters = counters
        self._longest_rest = coalesce_ms / 1000
        self._dirty = trio.Event()
        self._enough = trio.Event()  # much is pending: no more rest
        self._small = 0
        """Flushes at the end of a burst."""
        self._flushing = False  # the task has begun a flush, which nothing may overtake
        hub.on_dirty = self._dirty_now

    def _dirty_now(self) -> None:
        self._dirty.set()

    def after_burst(self) -> None:
        """The bus has handed over a burst of messages."""
        if not self._hub.is_dirty:
            return
        if self._flushing or self._longest_rest or not self._hub.has_few_pushes(_AT_ONCE):
            self._dirty.set()
            if self._hub.pending_bytes >= _REST_BYTES:
                self._enough.set()
        else:
            self._small += 1
            begun = 0 if self._small % _TIMED_EVERY else perf_counter_ns()
            for _ in self._portions_pushed():
                pass
            if begun:
                self._note(perf_counter_ns() - begun)

    async def run(self) -> None:
        """Flush forever."""
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            started = trio.current_time()
            await self.flush()
            if self._longest_rest:
                # Resting as long as the flush took halves the CPU under load and adds nothing when idle.
                await self._rest(min(trio.current_time() - started, self._longest_rest))
            elif self._dirty.is_set():
                await trio.lowlevel.checkpoint()  # one more turn of the loop, in which the next batches grow

    async def _rest(self, seconds: float) -> None:
        """Let a batch grow for some time, but not beyond all bounds."""
        with trio.move_on_after(seconds):
            await self._enough.wait()
        self._enough = trio.Event()

    async def flush(self) -> None:
        """Push everything that is pending now."""
        slices, begun = Slices(), perf_counter_ns()
        self._flushing = True
        for _ in self._portions_pushed():
            await slices.breathe()
        self._flushing = False
        self._note(perf_counter_ns() - begun)

    def _portions_pushed(self) -> Iterator[None]:
        """Push everything that is pending now, in portions."""
        bundles: _Bundles = {}
        batches, pushed = self._hub.take_dirty(), 0
        for batch in batches:
            data = batch.messages.joined()
            self._counters.deliveries += len(batch.messages.messages) * len(batch.members)
            for outboxes in _portions(batch):
                _push(outboxes, data, batch.messages, None if len(batches) == 1 else bundles)
                pushed += len(outboxes) or 1
                if pushed >= _CHECK_EVERY:
                    pushed = 0
                    yield
        for number, (outbox, parts) in enumerate(bundles.items()):
            left = batches[-1].left
            outbox.push_parts([part for part in parts if (id(part[1]), outbox) not in left] if left else parts)
            if number % _CHECK_EVERY == 0:
                yield
        self._hub.flushed()

    def _note(self, nanoseconds: int) -> None:
        """How long a flush took."""
        counters = self._counters
        counters.flushes_timed += 1
        counters.flush_microseconds += nanoseconds // 1000
        counters.flushes_slow += nanoseconds > _SLOW_NS


def _push(outboxes: list[Outbox], data: bytes, messages: EncodedBatch, bundles: _Bundles | None) -> None:
    """Push to each. With `bundles`, a connection with several channels waits: at the end it gets everything that is
    pending for it with one system call.
    """
    for outbox in outboxes:
        if bundles is None or outbox.subscriptions == 1:
            outbox.push(data, messages)
        else:
            bundles.setdefault(outbox, []).append((data, messages))


def _portions(batch: FlushBatch) -> Iterator[list[Outbox]]:
    """The members in portions; without those who leave while the portions before theirs are sent."""
    members, messages, left = batch.members, id(batch.messages), batch.left
    for start in range(0, len(members), _CHECK_EVERY):
        outboxes = members[start : start + _CHECK_EVERY]
        yield [outbox for outbox in outboxes if (messages, outbox) not in left] if left else outboxes
