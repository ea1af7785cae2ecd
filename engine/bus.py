"""The bus: a few verbs between workers. Implementations: NatsBus, and MemoryBus, its twin for unit tests.

Promises, the same for both and held by tests/engine/test_bus_contract.py:

- A message published by anybody after `wait_joined(channel)` has returned is delivered, until `leave(channel)`.
- Messages of one publisher on one channel are delivered in the order they were published, at most once.
- The publisher's own worker hears a message when it comes back from the bus, in the bus's order, as all others do.
- `deliver` is called synchronously and must not raise; between two calls nothing else of the caller has run.
"""

from collections.abc import Callable
from typing import Protocol

Deliver = Callable[[str, bytes], None]
"""Called with (channel, payload) for each message."""


class BusError(Exception):
    """The bus cannot do it now; str() is a sentence for a person. Nothing was done; trying again later may help."""


class Bus(Protocol):
    """What a worker sees of the others."""

    def attach(self, deliver: Deliver) -> None:
        """Name the one receiver of all joined channels; before the first `join`."""
        ...

    def join(self, channel: str) -> None:
        """Ask for a channel's messages; idempotent, takes effect soon."""
        ...

    async def wait_joined(self, channel: str) -> None:
        """Wait until a join is in effect at the bus; returns without a checkpoint if it already is."""
        ...

    def leave(self, channel: str) -> None:
        """Stop a channel's messages; idempotent, takes effect soon."""
        ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Hand a message over to the bus, at most once; BusError when the bus is away or too far behind."""
        ...
