"""The parts of the engine that a unit test needs, put together as the server does."""

import socket
from collections.abc import Callable
from typing import Any, cast

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.channels.audience.broadcasts import Everyone
from fanline.engine.channels.audience.omissions import FindOutbox
from fanline.engine.channels.durable.history import History
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.messages import MessageReader
from fanline.engine.channels.subscription import Router
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects.encoding import Encoding


def make_hub(
    namespaces: Namespaces | None = None,
    *,
    counters: Counters | None = None,
    clock_ms: Callable[[], int] = lambda: 1000,
    everyone: Everyone = tuple[tuple[Encoding, Outbox], ...],
    find: FindOutbox = lambda _: None,
    log_limit: int = 1000,
    budget: LogBudget | None = None,
) -> tuple[Hub, Counters]:
    namespaces, counters = namespaces or Namespaces(), counters or Counters()
    faults = Faults(counters, clock=lambda: 0.0)  # many tests of the hub need no Trio
    reader = MessageReader(namespaces, counters, faults, clock_ms)
    return Hub(namespaces, reader, counters, faults, everyone, find, log_limit=log_limit, budget=budget), counters


def idle_outbox() -> Outbox:
    """An outbox that is never sent anything."""
    with socket.socket() as closed:
        shared = OutboxShared(cast("Any", None), Counters(), max_bytes=1, max_messages=1)
        return Outbox(closed, Life(), shared)


class Parts:
    """A hub with all that its durable channels need. Messages are read by `reader`, time stands still."""

    def __init__(self, bus: Bus, nursery: trio.Nursery, namespaces: Namespaces, log_limit: int = 1000) -> None:
        counters, states = Counters(), StreamStates(bus)
        self.states = states
        self.faults = faults = Faults(counters)
        self.reader = MessageReader(namespaces, counters, faults, lambda: 0)
        everyone = tuple[tuple[Encoding, Outbox], ...]
        self.hub = Hub(namespaces, self.reader, counters, faults, everyone, lambda _: None, log_limit=log_limit)
        self.recovery = Recovery(bus, self.hub, states, self.reader, faults, nursery)
        self.history = History(bus, states, self.reader, self.recovery)
        self.router = Router(self.hub, bus, timeout=5.0)
        bus.attach(self.hub.receive, self.recovery.bus_is_back)
