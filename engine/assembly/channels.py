"""The parts behind all channels, from the bus to the flusher, and who is on them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import trio

from fanline.engine.assembly.basis import Basis, RunVital
from fanline.engine.channels.durable.history import History
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.joining.join import Joining
from fanline.engine.channels.messages import MessageReader
from fanline.engine.channels.subscription import Router
from fanline.engine.clock import unix_ms
from fanline.engine.hooks.task_ended import say_task_ended
from fanline.engine.presence.online import OnlineCounter
from fanline.engine.presence.presence import Presence
from fanline.engine.slices import Turns
from fanline.engine.tasks.monitor.monitor import TaskMonitor
from fanline.engine.tasks.monitor.stored.fresh_table import FreshTable
from fanline.engine.tasks.monitor.stored.table import TABLE_CHANNEL


class ChannelParts(NamedTuple):
    """The parts of them that the layers above need."""

    hub: Hub
    joining: Joining
    paging: Paging
    monitor: TaskMonitor
    presence: Presence
    online: OnlineCounter


def start_channels(
    basis: Basis, nursery: trio.Nursery, run_vital: RunVital, bus_is_back: Callable[[], None]
) -> ChannelParts:
    """Make them, and start what runs in the background. `bus_is_back`: called after each outage, once they know."""
    bus, settings, namespaces = basis.bus, basis.settings, basis.namespaces
    counters, faults, registry = basis.counters, basis.faults, basis.registry
    turns = Turns()
    reader = MessageReader(namespaces, counters, faults, unix_ms, turns)
    budget, limit = LogBudget(settings.log_bytes), settings.log_messages
    hub = Hub(namespaces, reader, counters, faults, registry.everyone, registry.find, log_limit=limit, budget=budget)
    states = StreamStates(bus)
    recovery = Recovery(bus, hub, states, reader, faults, nursery, turns)
    monitor = _task_monitor(basis, reader)
    router = Router(hub, bus, settings.bus_timeout)
    presence, online = _start_presence(basis, nursery, router, hub)

    def is_back(sound_until: float) -> None:
        presence.watches.compare_soon()
        recovery.bus_is_back(sound_until)
        hub.bus_is_back()
        monitor.bus_is_back()
        bus_is_back()

    flusher = Flusher(hub, counters, coalesce_ms=settings.coalesce)
    bus.attach(hub.receive, is_back, flusher.after_burst, hub.overhear)
    nursery.start_soon(faults.keep, "the list of live workers", basis.members.run)
    nursery.start_soon(monitor.run)
    nursery.start_soon(run_vital, "the flusher", flusher.run)
    joining = Joining(
        bus,
        router,
        recovery,
        History(bus, states, reader, recovery),
        counters,
        faults,
        timeout=settings.bus_timeout,
        patience=settings.idle_timeout,
        turns=turns,
        renew={TABLE_CHANNEL: FreshTable(bus, basis.members.live).renew},
    )
    return ChannelParts(hub, joining, Paging(bus, states, reader), monitor, presence, online)


def _task_monitor(basis: Basis, reader: MessageReader) -> TaskMonitor:
    return TaskMonitor(
        basis.bus,
        basis.members,
        basis.namespaces,
        reader.read_stored,
        reader.refuse,
        basis.counters,
        basis.faults,
        on_ended=partial(say_task_ended, basis.events),
    )


def _start_presence(basis: Basis, nursery: trio.Nursery, router: Router, hub: Hub) -> tuple[Presence, OnlineCounter]:
    bus, members, faults, settings = basis.bus, basis.members, basis.faults, basis.settings
    limit, timeout = settings.presence_users, settings.bus_timeout
    presence = Presence(bus, router, hub, members, basis.namespaces, faults, nursery, limit=limit, timeout=timeout)
    online = OnlineCounter(bus, members, faults, nursery, basis.registry.users)
    nursery.start_soon(faults.keep, "presence", presence.run)
    nursery.start_soon(faults.keep, "what presence follows", presence.watches.run)
    nursery.start_soon(faults.keep, "the count of users", online.run)
    return presence, online
