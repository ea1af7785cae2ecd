"""The bytes that a worker holds of requests that it passes on: of bodies until they are answered, and of answers until
their clients have read them.

They are bounded, and a client that makes the worker wait makes room for others: a client that sends or reads slowly
holds bytes that cost it nothing, and could otherwise keep all others from the control process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from fanline.engine.connections.arrivals import PATIENCE_SECONDS, Arrival
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.sockets.control_socket import AGAIN
from fanline.protocol.errors import HttpError

MAX_HELD_BYTES = 64 * 1024 * 1024

Hold = Callable[[int], None]
"""Counts further bytes of a request; HttpError 503 if there is no room for them."""


class _Held:
    """What is held of one request."""

    __slots__ = ("arrival", "since", "size")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.since = trio.current_time()
        self.size = 0


class HeldBytes:
    """Of one worker."""

    def __init__(self, hits: LimitHits) -> None:
        self._hits = hits
        self._all: dict[_Held, None] = {}  # the oldest first
        self._total = 0

    @contextmanager
    def of(self, arrival: Arrival) -> Iterator[Hold]:
        """Inside the block, bytes of the request of `arrival` can be held."""
        held = _Held(arrival)
        self._all[held] = None

        def hold(size: int) -> None:
            held.size += size
            self._total += size
            while self._total > MAX_HELD_BYTES:
                self._make_room(held)

        try:
            yield hold
        finally:
            self._forget(held)

    def _make_room(self, wanting: _Held) -> None:
        """Give up the request that has waited longest for its client; HttpError 503 if none has for long."""
        self._hits.hit(Limit.FORWARDED)
        waiting = (each for each in self._all if each.arrival.waiting is not None and each is not wanting)
        oldest = next(waiting, None)
        if oldest is None or oldest.since > trio.current_time() - PATIENCE_SECONDS:
            raise HttpError(503, "this worker holds too many requests", AGAIN)
        assert oldest.arrival.waiting is not None
        oldest.arrival.waiting.cancel()
        self._forget(oldest)  # it is still to be told

    def _forget(self, held: _Held) -> None:
        if held in self._all:
            del self._all[held]
            self._total -= held.size
