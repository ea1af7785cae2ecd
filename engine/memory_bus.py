"""The bus in memory: for unit tests, with the promises of engine/bus.py and none of NATS's weather."""

import trio

from engine.bus import BusError, Deliver


class MemoryBroker:
    """What the NATS server is to NatsBus: the meeting point of several buses in one process."""

    def __init__(self) -> None:
        self.buses: list[MemoryBus] = []
        self.available = True
        """Set to False to make every publish fail, as while NATS is away."""


class MemoryBus:
    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self._broker = broker or MemoryBroker()
        self._broker.buses.append(self)
        self._joined: set[str] = set()
        self._deliver: Deliver | None = None

    def attach(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def join(self, channel: str) -> None:
        self._joined.add(channel)

    async def wait_joined(self, channel: str) -> None:
        assert channel in self._joined

    def leave(self, channel: str) -> None:
        self._joined.discard(channel)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self._broker.available:
            raise BusError("the broker is away")
        for bus in self._broker.buses:
            if channel in bus._joined and bus._deliver is not None:
                bus._deliver(channel, payload)
