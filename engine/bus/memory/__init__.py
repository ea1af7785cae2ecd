"""The bus in memory, for unit tests: it keeps the promises of engine/bus/interface.py and has none of NATS's faults."""

from fanline.engine.bus.memory.broker import MemoryBroker
from fanline.engine.bus.memory.bus import MemoryBus

__all__ = ["MemoryBroker", "MemoryBus"]
