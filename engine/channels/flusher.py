"""The flusher: takes what the hub has pending and pushes it to every subscriber's outbox.

One joined bytes object per group and flush, shared by all members, so the cost is one `send` per connection and flush
and not per message: batches grow by themselves exactly when the worker is busy. A flush is cut into slices, so that
reading, accepting and heartbeats get their turn between them.
"""

from collections.abc import Iterator

import msgspec
import trio

from fanline.engine.channels.group import FlushBatch
from fanline.engine.channels.hub import Hub
from fanline.engine.counters import Counters
from fanline.engine.sending.batch import EncodedBatch
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import Slices

_CHECK_EVERY = 128  # pushes between two looks at the clock: about half a millisecond

_Bundles = dict[Outbox, list[tuple[bytes, EncodedBatch]]]


class Flusher:
    """`coalesce_ms`: the most milliseconds to rest after a flush; 0 for none."""

    def __init__(self, hub: Hub, counters: Counters, *, coalesce_ms: float) -> None:
        self._hub = hub
        self._counters = counters
        self._longest_rest = coalesce_ms / 1000
        self._dirty = trio.Event()
        hub.on_dirty = self._dirty_now

    def _dirty_now(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            started = trio.current_time()
            await self.flush()
            if self._longest_rest:
                # Resting as long as the flush took halves the CPU under load and adds nothing when idle.
                await trio.sleep(min(trio.current_time() - started, self._longest_rest))
            else:
                await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Push everything that is pending now."""
        slices, bundles = Slices(), _Bundles()
        batches = self._hub.take_dirty()
        alone = len(batches) == 1
        for batch in batches:
            data = batch.messages.joined()
            self._counters.deliveries += len(batch.messages.messages) * len(batch.members)
            self._push_joiners(batch)
            if alone:
                await self._push_all(batch, data, slices)
            else:
                await self._push_or_bundle(batch, data, bundles, slices)
        for number, (outbox, parts) in enumerate(bundles.items()):
            left = batches[-1].left
            outbox.push_parts([part for part in parts if (id(part[1]), outbox) not in left] if left else parts)
            if number % _CHECK_EVERY == 0:
                await slices.breathe()
        self._hub.flushed()

    def _push_joiners(self, batch: FlushBatch) -> None:
        for outbox, skipped in batch.joiners.items():
            if (id(batch.messages), outbox) in batch.left:
                continue
            rest = msgspec.structs.replace(batch.messages, messages=batch.messages.messages[skipped:])
            if rest.messages:
                self._counters.deliveries += len(rest.messages)
                outbox.push(rest.joined(), rest)

    async def _push_all(self, batch: FlushBatch, data: bytes, slices: Slices) -> None:
        messages = batch.messages
        for outboxes in _portions(batch):
            for outbox in outboxes:
                outbox.push(data, messages)
            await slices.breathe()

    async def _push_or_bundle(self, batch: FlushBatch, data: bytes, bundles: _Bundles, slices: Slices) -> None:
        """A connection that hears several dirty channels gets all of them with one system call, at the end."""
        messages = batch.messages
        for outboxes in _portions(batch):
            for outbox in outboxes:
                if outbox.subscriptions == 1:
                    outbox.push(data, messages)
                else:
                    bundles.setdefault(outbox, []).append((data, messages))
            await slices.breathe()


def _portions(batch: FlushBatch) -> Iterator[list[Outbox]]:
    """The members in portions; without those who leave while the portions before theirs are sent."""
    members, messages, left = batch.members, id(batch.messages), batch.left
    for start in range(0, len(members), _CHECK_EVERY):
        outboxes = members[start : start + _CHECK_EVERY]
        yield [outbox for outbox in outboxes if (messages, outbox) not in left] if left else outboxes
