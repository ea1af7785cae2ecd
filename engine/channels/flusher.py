"""The flusher: takes what the hub has pending and pushes it to every subscriber's outbox.

One joined bytes object per group and flush, shared by all members, so the cost is one `send` per connection and flush
and not per message: batches grow by themselves exactly when the worker is busy. A flush is cut into slices, so that
reading, accepting and heartbeats get their turn between them.
"""

import trio

from fanline.engine.channels.hub import Hub
from fanline.engine.counters import Counters
from fanline.engine.sending.backlog import EncodedBatch
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import Slices

_CHECK_EVERY = 128  # pushes between two looks at the clock: about half a millisecond


class Flusher:
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
        self._slices = Slices()
        bundles: dict[Outbox, list[tuple[bytes, EncodedBatch]]] = {}
        batches = self._hub.take_dirty()
        alone = len(batches) == 1
        for members, messages, joiners in batches:
            items = messages.items
            data = items[0].frame if len(items) == 1 else b"".join([item.frame for item in items])
            self._counters.deliveries += len(items) * len(members)
            self._push_joiners(messages, joiners)
            if alone:
                await self._push_all(members, data, messages)
            else:
                await self._push_or_bundle(members, data, messages, bundles)
        for number, (outbox, parts) in enumerate(bundles.items()):
            outbox.push_parts(parts)
            if number % _CHECK_EVERY == 0:
                await self._slices.breathe()

    def _push_joiners(self, messages: EncodedBatch, joiners: dict[Outbox, int]) -> None:
        for outbox, skipped in joiners.items():
            rest = messages.items[skipped:]
            if rest:
                self._counters.deliveries += len(rest)
                outbox.push(b"".join([item.frame for item in rest]), messages._replace(items=rest))

    async def _push_all(self, members: list[Outbox], data: bytes, messages: EncodedBatch) -> None:
        for start in range(0, len(members), _CHECK_EVERY):
            for outbox in members[start : start + _CHECK_EVERY]:
                outbox.push(data, messages)
            await self._slices.breathe()

    async def _push_or_bundle(
        self,
        members: list[Outbox],
        data: bytes,
        messages: EncodedBatch,
        bundles: dict[Outbox, list[tuple[bytes, EncodedBatch]]],
    ) -> None:
        """A connection that hears several dirty channels gets all of them with one system call, at the end."""
        for start in range(0, len(members), _CHECK_EVERY):
            for outbox in members[start : start + _CHECK_EVERY]:
                if outbox.subscriptions == 1:
                    outbox.push(data, messages)
                else:
                    bundles.setdefault(outbox, []).append((data, messages))
            await self._slices.breathe()
